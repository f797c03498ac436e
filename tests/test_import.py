import subprocess
import sys


def test_importing_the_package_loads_neither_fedml_nor_torch_and_is_quick() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import fedml_gradcam_ae; "
        "print(time.perf_counter() - start); print([m for m in ('torch', 'fedml', 'numpy') if m in sys.modules])"
    )
    outputs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in "123"]
    seconds, heavy = zip(*(output.stdout.splitlines() for output in outputs), strict=True)
    assert set(heavy) == {"[]"}
    assert min(map(float, seconds)) < 0.2


def test_a_report_needs_no_fedml() -> None:
    """Which takes seconds to import, and warns."""
    imported = "import sys, benchmark.report, benchmark.report.tables.check"
    code = f"{imported}; print([name for name in ('fedml', 'torch') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
