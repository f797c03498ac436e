"""Heat maps against Captum on each model alone, against plain autograd, and against the closed form of CAM."""

import pytest
import torch
from captum._utils.gradient import compute_layer_gradients_and_eval
from captum.attr import LayerGradCam
from torch import nn
from torchvision import models

from benchmark.models import small_cnn
from fedml_gradcam_ae.heatmaps import (
    class_maps,
    differentiable_class_maps,
    find_target_layer,
    grad_cam,
    layer_cam,
    min_max,
    resize,
)
from tiny import state_of


def resnet18() -> nn.Module:
    return models.resnet18(num_classes=10)


def mobilenet() -> nn.Module:
    return models.mobilenet_v3_large(num_classes=10)


def uploads_of(build, count):
    """Models that differ in every weight, and in their BatchNorm statistics too."""
    states = []
    for seed in range(count):
        torch.manual_seed(seed)
        state = state_of(build())
        for name, tensor in state.items():
            if name.endswith("running_mean"):
                state[name] = tensor - 0.1 * torch.rand_like(tensor)
            elif name.endswith("running_var"):
                state[name] = tensor * (0.5 + torch.rand_like(tensor))
        states.append(state)
    return states


@pytest.mark.parametrize(("build", "pixels"), [(resnet18, 128), (mobilenet, 128)])
@pytest.mark.parametrize("classes", ["label", "argmax"])
def test_uploads_give_the_maps_that_captum_gives_for_each_model_loaded_alone(build, pixels, classes) -> None:
    uploads = uploads_of(build, 8)
    images = torch.rand(2, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([3, 7]) if classes == "label" else None
    network = build().eval()
    layer = find_target_layer(network, images)
    maps = grad_cam(network, uploads, images, layer, labels)
    assert maps.shape == (8, 2, 4, 4)

    alone = build().eval()
    for upload, found in zip(uploads, maps, strict=True):
        alone.load_state_dict(upload)
        target = labels if labels is not None else alone(images).argmax(1)
        expected = LayerGradCam(alone, alone.get_submodule(layer)).attribute(images, target, relu_attributions=True)
        largest = expected.max().item()
        assert torch.allclose(found, expected[:, 0].detach(), atol=1e-5 * min(1, largest), rtol=0)
    # The ReLU blanks some maps of random networks; blank maps alone would agree with anything.
    assert (maps.amax(dim=(1, 2, 3)) > 0).sum() >= 4


@pytest.mark.parametrize("build", [resnet18, mobilenet])
def test_class_maps_are_captums_of_each_class_before_the_relu(build) -> None:
    """In float64: single threads, which class_maps uses, round float32 differently from several."""
    uploads = [
        {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in upload.items()}
        for upload in uploads_of(build, 3)
    ]
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    network = build().double().train()
    layer = find_target_layer(network, images)
    maps = class_maps(network, uploads, images, layer)
    assert maps.shape == (3, 2, 10, 2, 2)
    assert network.training

    alone = build().double().eval()
    for upload, found in zip(uploads, maps, strict=True):
        alone.load_state_dict(upload)
        explained = LayerGradCam(alone, alone.get_submodule(layer))
        for c in range(10):
            expected = explained.attribute(images, c)[:, 0].detach()
            assert torch.allclose(found[:, c], expected, atol=1e-12 * expected.abs().max().item(), rtol=0)
        assert (found < 0).any()
        assert (found > 0).any()


def test_the_definition_by_plain_autograd() -> None:
    network = small_cnn().eval()
    images = torch.rand(3, 1, 32, 32)
    labels = torch.tensor([0, 4, 9])
    features = network[:11](images).detach().requires_grad_()
    network[11:](features)[range(3), labels].sum().backward()
    alpha = features.grad.mean(dim=(2, 3))
    expected = torch.einsum("im,imhw->ihw", alpha, features).relu()
    found = grad_cam(network, [network.state_dict()], images, "10", labels)[0]
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("build", [resnet18, mobilenet])
@pytest.mark.parametrize("classes", ["label", "argmax"])
def test_layer_cam_is_made_of_captums_gradients_and_activations_of_each_model_loaded_alone(build, classes) -> None:
    """In float64: single threads, which layer_cam uses, round float32 differently from several."""
    uploads = [
        {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in upload.items()}
        for upload in uploads_of(build, 4)
    ]
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([3, 7]) if classes == "label" else None
    network = build().double().train()
    layer = find_target_layer(network, images)
    maps = layer_cam(network, uploads, images, layer, labels)
    assert maps.shape == (4, 2, 4, 4)
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())

    alone = build().double().eval()
    for upload, found in zip(uploads, maps, strict=True):
        alone.load_state_dict(upload)
        target = labels if labels is not None else alone(images).argmax(1)
        gradients, activations = compute_layer_gradients_and_eval(alone, alone.get_submodule(layer), images, target)
        expected = (gradients[0].clamp(min=0) * activations[0]).sum(1).clamp(min=0).detach()
        assert torch.allclose(found, expected, atol=1e-12 * float(expected.max()), rtol=0)
        assert expected.max() > 0
    assert not torch.allclose(maps, grad_cam(network, uploads, images, layer, labels))


def test_layer_cam_by_hand() -> None:
    """Slopes 2, -1, 0.5 and 3 at the positions of one feature map, and the opposite at those of another."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Linear(8, 2, bias=False))
    slopes = torch.tensor([2.0, -1.0, 0.5, 3.0])
    upload = {
        "0.weight": torch.tensor([1.0, 10.0]).view(2, 1, 1, 1),
        "2.weight": torch.stack([torch.cat([slopes, -slopes]), torch.zeros(8)]),
    }
    images = torch.tensor([[[[1.0, 2.0], [-4.0, 1.0]]]])
    found = layer_cam(network, [upload], images, "0", torch.tensor([0]))
    assert found.tolist() == [[[[2.0, 20.0], [0.0, 3.0]]]]  # the third position's sum is -2


def test_for_pooling_and_one_linear_layer_grad_cam_is_cam() -> None:
    network = small_cnn().eval()
    images = torch.rand(2, 1, 32, 32)
    features = network[:11](images)
    positions = features.shape[2] * features.shape[3]
    weights = network[-1].weight[torch.tensor([1, 2])]
    expected = torch.einsum("im,imhw->ihw", weights, features).relu() / positions
    assert torch.allclose(grad_cam(network, [network.state_dict()], images, "10", torch.tensor([1, 2]))[0], expected)


def test_the_network_is_left_as_it_was() -> None:
    network = small_cnn().train()
    before = state_of(network)
    grad_cam(
        network,
        uploads_of(small_cnn, 2),
        torch.rand(1, 1, 32, 32),
        find_target_layer(network, torch.rand(1, 1, 32, 32)),
    )
    assert network.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in before.items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_an_upload_whose_arithmetic_overflows_gives_maps_that_are_not_finite() -> None:
    network = small_cnn()
    huge = {name: t * 1e30 if t.is_floating_point() else t for name, t in state_of(network).items()}
    maps = grad_cam(network, [state_of(network), huge], torch.rand(1, 1, 32, 32), "10")
    assert torch.isfinite(maps[0]).all()
    assert not torch.isfinite(maps[1]).all()


@pytest.mark.parametrize(
    ("build", "channels", "pixels", "layer", "size"),
    [
        (resnet18, 3, 224, "layer4", 7),
        (mobilenet, 3, 224, "features", 7),
        (lambda: models.vgg11(num_classes=10), 3, 64, "features.19", 4),
        (lambda: models.densenet121(num_classes=10), 3, 128, "features", 4),
        (lambda: models.squeezenet1_1(num_classes=10), 3, 64, "classifier.2", 3),
        (small_cnn, 1, 32, "10", 8),
    ],
    ids=["resnet18", "mobilenet_v3_large", "vgg11", "densenet121", "squeezenet", "small_cnn"],
)
def test_auto_finds_the_end_of_the_last_convolutional_stage(build, channels, pixels, layer, size) -> None:
    network = build()
    images = torch.rand(1, channels, pixels, pixels)
    assert find_target_layer(network, images) == layer
    assert grad_cam(network, [network.state_dict()], images, layer).shape == (1, 1, size, size)


@pytest.mark.parametrize("build", [lambda: models.vgg11(num_classes=10), lambda: models.densenet121(num_classes=10)])
def test_layers_followed_by_an_in_place_relu(build) -> None:
    """VGG and DenseNet change the target's output in place; Captum on the model alone is still met."""
    torch.manual_seed(0)
    network = build().eval()
    images = torch.rand(2, 3, 64, 64)
    layer = find_target_layer(network, images)
    alone = LayerGradCam(network, network.get_submodule(layer))
    expected = alone.attribute(images, torch.tensor([1, 2]), relu_attributions=True)[:, 0].detach()
    found = grad_cam(network, [network.state_dict()], images, layer, torch.tensor([1, 2]))[0]
    assert torch.allclose(found, expected, atol=1e-5)


def vit(size: int = 32) -> nn.Module:
    torch.manual_seed(0)
    network = models.VisionTransformer(size, 8, 2, 2, 16, 32, num_classes=10)
    nn.init.normal_(network.heads.head.weight)  # torchvision's zeros would make every map zero
    return network.double().eval()


class MeanOfTokens(nn.Module):
    """A transformer without a class token: the class scores are of the mean of all patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.block(tokens)).mean(dim=1))


class LinearPatches(MeanOfTokens):
    """The same without any convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Linear(3 * 64, 16)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = images.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        return self.head(self.norm(self.block(self.patches(patches))).mean(dim=1))


def token_maps(network: nn.Module, layer: str, images: torch.Tensor, extra: int) -> torch.Tensor:
    """The signed maps of all classes by the definition, (images, classes, rows, rows), with loops and a plain hook."""
    kept = {}
    handle = network.get_submodule(layer).register_forward_hook(lambda *given: kept.update(tokens=given[2]))
    scores = network(images)
    handle.remove()
    maps = []
    for c in range(scores.shape[1]):
        (slopes,) = torch.autograd.grad(scores[:, c].sum(), kept["tokens"], retain_graph=True)
        alpha = slopes[:, extra:].mean(dim=1)
        maps.append(torch.einsum("im,ipm->ip", alpha, kept["tokens"][:, extra:].detach()))
    rows = round(maps[0].shape[1] ** 0.5)
    return torch.stack(maps, dim=1).unflatten(2, (rows, rows))


@pytest.mark.parametrize(
    ("build", "layer", "extra"),
    [
        (vit, "encoder.layers.encoder_layer_1.ln_1", 1),
        (lambda: MeanOfTokens().double().eval(), "norm", 0),
        (lambda: LinearPatches().double().eval(), "norm", 0),
    ],
    ids=["class token", "mean of tokens", "no convolution"],
)
def test_the_tokens_of_a_transformer_are_feature_maps(build, layer, extra) -> None:
    network = build()
    images = torch.rand(3, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert find_target_layer(network, images) == layer
    expected = token_maps(network, layer, images, extra)
    upload = state_of(network)
    assert torch.allclose(class_maps(network, [upload], images, layer)[0], expected, atol=1e-12)
    labels = torch.tensor([2, 0, 9])
    assert torch.allclose(
        grad_cam(network, [upload], images, layer, labels)[0], expected[range(3), labels].relu(), atol=1e-12
    )
    assert (expected > 0).any()


def test_a_transformer_before_any_training_has_the_layer_that_it_has_later() -> None:
    """torchvision starts with a last layer of zeros, through which no gradient passes."""
    network = models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=10)
    assert find_target_layer(network, torch.rand(1, 3, 32, 32)) == "encoder.layers.encoder_layer_1.ln_1"


def test_attackers_can_differentiate_the_maps_of_a_transformer() -> None:
    network = vit()
    weight = network.encoder.layers[0].mlp[0].weight.detach().clone().requires_grad_()
    upload = {**state_of(network), "encoder.layers.encoder_layer_0.mlp.0.weight": weight}
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    layer = "encoder.layers.encoder_layer_1.ln_1"
    maps = differentiable_class_maps(network, upload, images, layer)
    assert torch.allclose(maps.detach(), class_maps(network, [upload], images, layer)[0], atol=1e-12)
    (slope,) = torch.autograd.grad(maps.square().sum(), weight)
    step = torch.randn_like(weight) * 1e-6
    moved = [
        class_maps(
            network,
            [{**upload, "encoder.layers.encoder_layer_0.mlp.0.weight": weight.detach() + sign * step}],
            images,
            layer,
        )
        for sign in (1, -1)
    ]
    assert float((slope * step).sum()) == pytest.approx(
        float((moved[0].square().sum() - moved[1].square().sum()) / 2), rel=1e-4
    )


def test_maps_with_channels_last_are_not_read_as_feature_maps() -> None:
    """Inside a ConvNeXt block, LayerNorm and Linear see (images, height, width, channels)."""
    network = models.convnext_tiny(num_classes=10)
    images = torch.rand(1, 3, 64, 64)
    assert find_target_layer(network, images) == "features"
    assert class_maps(network, [state_of(network)], images, "features").shape == (1, 1, 10, 2, 2)


def test_an_earlier_stage_is_taken_where_the_last_one_has_too_few_positions() -> None:
    images = torch.rand(1, 3, 32, 32)
    found = [find_target_layer(resnet18(), images, smallest=smallest) for smallest in (1, 2, 3, 8)]
    assert found == ["layer4", "layer3", "layer2", "layer1"]
    with pytest.raises(ValueError, match="33 x 33 positions or more on images of 32 x 32 pixels"):
        find_target_layer(resnet18(), images, smallest=33)


def test_a_dotted_name_is_taken() -> None:
    assert find_target_layer(resnet18(), torch.rand(1, 3, 64, 64), "layer3.1") == "layer3.1"


def test_a_layer_that_does_not_exist_is_answered_with_near_ones() -> None:
    with pytest.raises(ValueError, match=r"no module 'layr4'\. Did you mean .*layer4"):
        find_target_layer(resnet18(), torch.rand(1, 3, 64, 64), "layr4")


def test_a_layer_without_maps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'fc' gives no feature maps .* Layers that do: avgpool, bn1, conv1"):
        find_target_layer(resnet18(), torch.rand(1, 3, 64, 64), "fc")


def test_a_network_without_convolutions_is_refused() -> None:
    with pytest.raises(ValueError, match="found no convolution"):
        find_target_layer(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), torch.rand(1, 1, 8, 8))


def test_min_max_by_hand() -> None:
    maps = torch.tensor([[[1.0, 3.0], [5.0, 2.0]], [[4.0, 4.0], [4.0, 4.0]]])
    assert torch.equal(min_max(maps), torch.tensor([[[0, 0.5], [1, 0.25]], [[0, 0], [0, 0]]]))


def test_resize_keeps_what_has_the_size_already() -> None:
    maps = torch.rand(2, 3, 4, 4)
    assert resize(maps, 4) is maps
    assert resize(torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]]), 1).item() == 4.0
