"""Module kinds, training regimes and float64 references behind docs/support.md; tests/field uses them too."""
