"""A corpus' tokenizer as the Hugging Face layout has it: the files beside a model's weights.

Standard library alone: a model leaves without the tokenizers library.
"""

from __future__ import annotations

from pathlib import Path

from mixopt.io import files

TOKENIZER, CONFIG, SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
GENERATION = "generation_config.json"


def write_tokenizer(
    folder: Path, tokenizer: Path, end_of_text: str, end_of_text_id: int, positions: int
) -> None:
    """Write the tokenizer into `folder`, as transformers' AutoTokenizer reads it.

    Documents are closed by `end_of_text`, and nothing stands before them: it is also what a text
    begins with, and none is put before a prompt.

    Args:
        folder: of the model.
        tokenizer: the corpus' `tokenizer.json`, which is copied.
        end_of_text: the token that closes a document.
        end_of_text_id: its id.
        positions: length of the sequences of the training, in tokens.

    Raises:
        FileError: a file cannot be written.
    """
    special = {"bos_token": end_of_text, "eos_token": end_of_text}
    files.write_bytes(folder / TOKENIZER, tokenizer.read_bytes())
    files.write_json(folder / SPECIAL, special)
    ids = {"bos_token_id": end_of_text_id, "eos_token_id": end_of_text_id}
    files.write_json(folder / GENERATION, ids)
    files.write_json(
        folder / CONFIG,
        {
            **special,
            "add_bos_token": False,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": positions,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
