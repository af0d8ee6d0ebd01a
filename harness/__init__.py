"""gradparity's job: run one case in several frameworks, compare every quantity, say rounding or bug, write reports."""
