"""Benchmarks of time and memory: what `bench_defenses.py` times, and how its results are shown."""

NETWORKS = {"resnet18": "ResNet-18", "mobilenet_v3_large": "MobileNetV3-Large"}  # torchvision's names and our titles
CLIENTS = (10, 20, 50)  # K, the numbers of clients that rules are timed with
