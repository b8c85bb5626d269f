"""What goes wrong in a configuration, said in one sentence: which file, which option, what to do about it."""

from __future__ import annotations


class ConfigError(Exception):
    """A mistake in the configuration that a process cannot start with.

    :param file: the file the option stands in (or should stand in), possibly with `, line N`.
    :param option: as its user writes it, `worker_app`, `listeners[0].port`; None when the whole file is meant.
    :param problem: what is wrong, as the end of a sentence that begins with the option.
    :param remedy: what to do, as an imperative clause without a full stop.
    """

    def __init__(self, file: str, option: str | None, problem: str, remedy: str) -> None:
        self.file = file
        self.option = option
        self.problem = problem
        self.remedy = remedy
        super().__init__(file, option, problem, remedy)

    def __str__(self) -> str:
        subject = f"`{self.option}` {self.problem}" if self.option else self.problem
        return f"{self.file}: {subject}; {self.remedy}."
