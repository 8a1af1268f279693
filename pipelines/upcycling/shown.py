"""What `mixopt upcycle` prints: the plan, and the receipt."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mixopt.core.formatting import bytes_text, count
from mixopt.models.families.checkpoint import ROOM
from mixopt.models.upcycling.folders import RECEIPT, Plan
from mixopt.models.upcycling.receipt import Receipt

LISTED = 8  # dead experts named on the console; the receipt has all


def as_values(plan: Plan, disk_left: int) -> dict[str, Any]:
    """The plan as JSON-able values."""
    return {
        "target": plan.family.name,
        "dtype": _dtype(plan),
        "params": plan.params,
        "active_params": plan.active_params,
        "bytes": plan.bytes,
        "files": plan.files,
        "disk_left": disk_left,
        "shape": dataclasses.asdict(plan.shape),
        "receipt": plan.receipt.to_json(),
    }


def show_plan(console: Console, plan: Plan, out: Path, disk_left: int) -> None:
    """Print what would be written, and what of the receipt is known before."""
    console.print(f"Plan of {out}; nothing is written", style="bold", soft_wrap=True)
    little = "" if plan.bytes * ROOM <= disk_left else ": too little"
    console.print(_table([*_size_rows(plan), ("disk left", f"{bytes_text(disk_left)}{little}")]))
    console.print("\nReceipt, as far as it is known before", style="bold")
    console.print(_table(_receipt_rows(plan.receipt)))
    _show_notes(console, plan.receipt)


def show_result(console: Console, plan: Plan, receipt: Receipt, out: Path) -> None:
    """Print what was written, the receipt, and how to load it."""
    console.print(f"Wrote {out}", style="bold", soft_wrap=True)
    console.print(_table(_size_rows(plan)))
    console.print(f"\nReceipt, kept in {RECEIPT}", style="bold")
    console.print(_table(_receipt_rows(receipt)))
    _show_notes(console, receipt)
    console.print("\nNext step: load it", style="bold")
    console.print(f'  transformers.AutoModelForCausalLM.from_pretrained("{out}")', soft_wrap=True)


def _table(rows: list[tuple[str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _size_rows(plan: Plan) -> list[tuple[str, str]]:
    shape = plan.shape
    files = "1 file" if plan.files == 1 else f"{plan.files} files"
    return [
        ("family", f"{plan.family.name} ({plan.family.architecture})"),
        (
            "experts",
            f"{shape.experts} in each of {shape.layers} blocks, {shape.experts_per_token} per "
            f"token, of width {shape.hidden:,}",
        ),
        ("parameters", f"{count(plan.params)}, of them {count(plan.active_params)} active"),
        ("on disk", f"{bytes_text(plan.bytes)} in {files}, {_dtype(plan)}"),
    ]


def _receipt_rows(receipt: Receipt) -> list[tuple[str, str]]:
    return [
        ("method", receipt.method),
        ("experts from", _origins(receipt.experts)),
        ("channels kept", f"{receipt.channels_kept:.1%} are a source's"),
        ("function kept", "yes" if receipt.preserves_function else "no"),
        ("what is no expert", f"merged by {receipt.merge}" if receipt.merge else "the seed's"),
        ("routers", receipt.router),
        *_measured_rows(receipt),
    ]


def _measured_rows(receipt: Receipt) -> Iterator[tuple[str, str]]:
    if receipt.logit_difference is None:
        return
    yield "logits moved by", f"{receipt.logit_difference:.3g} at most"
    for domain, entropy in receipt.router_entropy.items():
        loads = " ".join(f"{share:.1%}" for share in receipt.loads[domain])
        yield domain, f"router entropy {entropy:.2f} nats; load {loads}"
    dead = receipt.dead_experts
    if dead:
        more = f" and {len(dead) - LISTED} more" if len(dead) > LISTED else ""
        yield "dead experts", f"{', '.join(dead[:LISTED])}{more} (block.expert)"
    else:
        yield "dead experts", "none"


def _origins(experts: tuple[str, ...]) -> str:
    """`code, prose, seed`, or `seed × 8`."""
    if len(set(experts)) == len(experts):
        return ", ".join(experts)
    return ", ".join(f"{name} × {times}" for name, times in Counter(experts).items())


def _show_notes(console: Console, receipt: Receipt) -> None:
    for note in receipt.notes:
        console.print(f"Note: {note}.", soft_wrap=True)


def _dtype(plan: Plan) -> str:
    return str(plan.dtype).removeprefix("torch.")
