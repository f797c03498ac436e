"""A process with bounded memory that decodes the messages named on its input, and says of each what became of it.

One line of JSON per case: its name, the kind of an `Undecodable` (null for a message that was decoded), any other
error, the seconds, and by how many MB the process's peak has grown.
"""

from __future__ import annotations

import json
import resource
import sys
import time

from hostile.cases import cases

SPARE = 1_000_000_000  # bytes of address space beyond what the libraries take
MESSAGE = 100_000  # bytes: the corpus's honest message has 20 kB


def peak() -> float:
    """The most memory that this process has used, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    from fedml_gradcam_ae.hooks.cross_silo.decoding import Budget, Undecodable, decode_message

    budget = Budget(bytes=4 * MESSAGE + 2_000_000, objects=100_000, depth=50, seconds=2.0)
    contents = {case.name: case.build for case in cases("message")}
    decode_message(contents["a parameter of 900 kb"](), budget)  # imports what is imported late
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE, used + SPARE))
    for line in sys.stdin:
        name = line.strip()
        content = contents[name]()
        found: dict[str, object] = {"name": name, "kind": None, "error": None}
        before, start = peak(), time.process_time()
        try:
            decode_message(content, budget)
        except Undecodable as error:
            found.update(kind=error.kind, text=str(error))
        except BaseException as error:
            found["error"] = f"{type(error).__name__}: {str(error)[:300]}"
        found.update(seconds=time.process_time() - start, megabytes=peak() - before)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
