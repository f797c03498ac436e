"""The benchmark suite, run from a checkout: python -m benchmark run CONFIG --out DIR."""
