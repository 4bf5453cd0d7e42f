"""Converters of published model answers into recorded traffic (`upstack.core.traffic`).

    python -m benchmarks.converters SET OUT_DIR [--data FOLDER] [--file FILE]

The sets are not part of the project: their folder is named by `UPSTACK_DATA` or `--data`, and nothing made from them
is written into the project.
"""
