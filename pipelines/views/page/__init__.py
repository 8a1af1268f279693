"""The page that reports of studies, fits and replays share."""
