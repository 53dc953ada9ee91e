"""Where a program's buffers lie: those that are never alive together share memory."""

from __future__ import annotations

from collections.abc import Iterator

from fabula.kernels.program import Buffer, Instruction, Operation, Program, Value


def place_buffers(program: Program) -> tuple[dict[Buffer, int], int]:
    """Each buffer's offset in bytes a row, and the bytes a row of all."""
    lives = _lives(program)
    placed: list[tuple[int, int, int, int]] = []  # first, last, begin, end
    offsets: dict[Buffer, int] = {}
    for buffer, (first, last) in sorted(lives.items(), key=lambda item: item[1][0]):
        taken = sorted((begin, end) for born, dead, begin, end in placed if born <= last and first <= dead)
        offset = 0
        for begin, end in taken:
            if begin - offset >= buffer.stride:
                break
            offset = max(offset, end)
        offsets[buffer] = offset
        placed.append((first, last, offset, offset + buffer.stride))
    return offsets, max((end for *_, end in placed), default=0)


def _lives(program: Program) -> dict[Buffer, tuple[int, int]]:
    """The first and the last instruction of each buffer. It outlives its last use until threads have met for sure."""
    lives: dict[Buffer, tuple[int, int]] = {}
    for index, instruction in enumerate(program.instructions):
        for value in values_of(instruction):
            if value.buffer.output is None:
                lives[value.buffer] = (lives.get(value.buffer, (index, index))[0], index)
    meeting = _meetings(program)
    return {buffer: (first, meeting[last]) for buffer, (first, last) in lives.items()}


def _meetings(program: Program) -> list[int]:
    """For each instruction the next one behind it that reads rows of all threads, or itself at the end."""
    found = list(range(len(program.instructions)))
    following: int | None = None
    for index in reversed(found):
        found[index] = index if following is None else following
        if program.instructions[index].operation >= Operation.MATMUL:
            following = index
    return found


def values_of(instruction: Instruction) -> Iterator[Value]:
    """What an instruction reads and writes."""
    yield from instruction.inputs
    if instruction.out is not None:
        yield instruction.out
    for segment in instruction.segments:
        for value in (segment.out, segment.residual):
            if value is not None:
                yield value
