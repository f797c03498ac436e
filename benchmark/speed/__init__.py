"""How long the rules take: what `bench_defenses.py` times, and what becomes of its numbers."""

NETWORKS = {"resnet18": "ResNet-18", "mobilenet_v3_large": "MobileNetV3-Large"}  # torchvision's names, and their titles
CLIENTS = (10, 20, 50)  # K
