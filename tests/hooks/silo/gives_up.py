"""The same project with a defense that fails."""

import runpy
from pathlib import Path

from fedml_gradcam_ae import Defense, register_defense


@register_defense("gives_up")
class GivesUp(Defense):
    def judge(self, round):
        raise ValueError("this defense gives up")


if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).with_name("main.py")), run_name="__main__")
