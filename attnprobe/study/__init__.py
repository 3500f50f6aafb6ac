"""A study of several methods: what its runs left, what it finds, its tables. Torch-free.

    study.toml scores.csv timings.csv trainings/METHOD-seedK/ analyses/METHOD-seedK-epochE/

A study may be under way. What is not there is named and judged as not measured.
"""

from attnprobe.study.findings import findings
from attnprobe.study.folder import FILE, Run, Study, is_study, load
from attnprobe.study.missing import missing
from attnprobe.study.saving import save
from attnprobe.study.tables import Summary, summarise

__all__ = [
    "FILE",
    "Run",
    "Study",
    "Summary",
    "findings",
    "is_study",
    "load",
    "missing",
    "save",
    "summarise",
]
