"""Mutate real messages and hostile pickles, and check that the decoder refuses them or returns plain values.

    python tests/fuzz_decoding.py --minutes 10 --seed 0 [--corpus FOLDER]

With atheris, the search is guided by the decoder's coverage; without it, or with --blind, mutations are drawn at
random. The first finding ends the run, and its bytes are printed: they belong into
tests/hooks/hostile_pickles.py.
"""

from __future__ import annotations

import argparse
import contextlib
import pickletools
import random
import struct
import sys
import time
import traceback
import tracemalloc
from pathlib import Path

for folder in (Path(__file__).parent.parent, Path(__file__).parent / "hooks"):
    sys.path.insert(0, str(folder))

INTERESTING = (0, 1, 2, 7, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)
OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
LARGEST = 1 << 13
MEASURED = 50  # every so manyth input is decoded once more, with its memory measured
SLACK = 3_000_000  # bytes, of Python's own and of what the check itself takes


def instructions(content: bytes) -> list[bytes]:
    """The pickle cut into its instructions; what cannot be parsed is the last piece."""
    starts: list[int] = []
    with contextlib.suppress(Exception):  # pickletools raises anything
        starts.extend(position for _, _, position in pickletools.genops(content))
    starts = starts or [0]
    return [content[start:end] for start, end in zip(starts, [*starts[1:], len(content)], strict=True)]


def change_instruction(piece: bytes, rng: random.Random) -> bytes:
    """Change an argument: a number to an interesting one, the inside of bytes to what a mutation makes of it."""
    if piece[:1] in (b"B", b"X", b"C", b"\x8c", b"\x8e", b"\x96", b"\x8d"):
        width = {b"C": 1, b"\x8c": 1, b"B": 4, b"X": 4}.get(piece[:1], 8)
        inside = mutate(piece[1 + width :], rng, [])[: 255 if width == 1 else LARGEST]
        return piece[:1] + len(inside).to_bytes(width, "little") + inside
    width = len(piece) - 1
    if 0 < width <= 8:
        return piece[:1] + (rng.choice(INTERESTING) % 256**width).to_bytes(width, "little")
    return piece


def mutate(content: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """One to four changes of bytes or of whole instructions."""
    for _ in range(rng.randint(1, 4)):
        way = rng.randrange(10)
        spot = rng.randrange(len(content) + 1)
        if way == 0:
            content = content[:spot]
        elif way == 1 and content:
            spot %= len(content)
            content = content[:spot] + bytes([content[spot] ^ 1 << rng.randrange(8)]) + content[spot + 1 :]
        elif way == 2:
            number = struct.pack(rng.choice(("<Q", ">Q")), rng.choice(INTERESTING))[: rng.choice((1, 2, 4, 8))]
            content = content[:spot] + number + content[spot + len(number) * rng.randrange(2) :]
        elif way == 3 and others:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            content = content[:spot] + other[start : start + rng.choice((4, 40, 400))] + content[spot:]
        else:
            pieces = instructions(content)
            one = rng.randrange(len(pieces))
            if way == 4:
                del pieces[one]
            elif way == 5:
                pieces.insert(one, rng.choice(OPCODES) + rng.randbytes(rng.choice((0, 0, 1, 2, 4))))
            elif way == 6:
                pieces.insert(rng.randrange(len(pieces) + 1), pieces[one])
            elif way == 7 and others:
                start = rng.randrange(len(donor := instructions(rng.choice(others))))
                pieces[one:one] = donor[start : start + rng.choice((1, 2, 8, 30))]
            elif way == 8:
                other = rng.randrange(len(pieces))
                pieces[one], pieces[other] = pieces[other], pieces[one]
            else:
                pieces[one] = change_instruction(pieces[one], rng)
            content = b"".join(pieces)
        content = content[:LARGEST]
    return content


def check_memory(content: bytes) -> None:
    """Assert that decoding stays within content, budget and slack."""
    from plain_values import SMALL, attempt

    tracemalloc.start()
    try:
        attempt(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < len(content) + SMALL.bytes + SLACK, f"{peak} bytes were in use"


def check(content: bytes, number: int) -> None:
    """One execution."""
    from plain_values import attempt

    start = time.process_time()
    attempt(content)
    assert time.process_time() - start < 5, "decoding took more than 5 s"
    if number % MEASURED == 0:
        check_memory(content)


def seeds() -> list[bytes]:
    """Real messages and the hostile corpus."""
    from hostile_pickles import HOSTILE
    from real_messages import real_messages

    return [content for content in real_messages() + [case.content for case in HOSTILE] if len(content) <= LARGEST]


def fuzz_blindly(seconds: float, seed: int) -> int:
    """Draw mutations at random; what brings a refusal that was not seen before joins the corpus.

    Returns:
        How many inputs were tried.
    """
    from plain_values import attempt

    rng = random.Random(seed)
    corpus = seeds()
    known: set[str] = set()
    end, executed = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        content = mutate(rng.choice(corpus), rng, corpus)
        try:
            check(content, executed)
            outcome = "".join(character for character in attempt(content)[1] if not character.isdigit())[:60]
        except BaseException:
            print(f"finding after {executed} inputs: {content!r}")
            raise
        if outcome not in known and len(known) < 5000:
            known.add(outcome)
            corpus.append(content)
        executed += 1
    print(f"{executed} inputs, {len(known)} different outcomes, no finding")
    return executed


def fuzz_guided(seconds: float, seed: int, folder: Path) -> None:
    """Let atheris search for inputs that reach new code; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["fedml_gradcam_ae.hooks.cross_silo.decoding"]):
        import fedml_gradcam_ae.hooks.cross_silo.decoding  # noqa: F401
    corpus = seeds()
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(corpus):
        (folder / f"seed{number}").write_bytes(content)
    executed = 0

    def one(content: bytes) -> None:
        nonlocal executed
        executed += 1
        try:
            check(content, executed)
        except BaseException:
            traceback.print_exc()
            print(f"finding: {content!r}", flush=True)
            raise

    def mutator(content: bytes, largest: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.2:
            return bytes(atheris.Mutate(content, largest))
        return mutate(bytes(content), rng, corpus)[:largest]

    options = [f"-max_total_time={int(seconds)}", f"-seed={seed + 1}", f"-max_len={LARGEST}", "-rss_limit_mb=4096"]
    options += [f"-artifact_prefix={folder}/", "-print_final_stats=1", "-timeout=60"]
    atheris.Setup([sys.argv[0], *options, str(folder)], one, custom_mutator=mutator)
    atheris.Fuzz()


def main() -> None:
    """Read the command line and fuzz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--blind", action="store_true", help="without coverage, also where atheris is there")
    parser.add_argument("--corpus", type=Path, default=Path("results/fuzz_decoding"), help="atheris' folder of inputs")
    chosen = parser.parse_args()
    if not chosen.blind:
        try:
            fuzz_guided(60 * chosen.minutes, chosen.seed, chosen.corpus)
        except ImportError:
            print("atheris is not installed: mutations are drawn at random")
    fuzz_blindly(60 * chosen.minutes, chosen.seed)


if __name__ == "__main__":
    main()
