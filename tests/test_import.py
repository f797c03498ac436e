import subprocess
import sys


def test_importing_the_package_loads_neither_fedml_nor_torch() -> None:
    heavy = ("captum", "fedml", "grpc", "matplotlib", "numpy", "scipy", "sklearn", "torch", "torchvision", "yaml")
    code = f"import sys, fedml_gradcam_ae; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_report_needs_no_fedml() -> None:
    """Which takes seconds to import, and warns."""
    imported = "import sys, benchmark.report, benchmark.report.tables.check"
    code = f"{imported}; print([name for name in ('fedml', 'torch') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
