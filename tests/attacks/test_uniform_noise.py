import torch

from fedml_gradcam_ae.attacks.uniform_noise import UniformNoise


def test_noise_from_the_interval_on_every_weight_and_bias_and_nothing_else(make_round) -> None:
    round = make_round()
    trained = {name for name, _ in round.network.named_parameters()}
    for attacker, poisoned in zip([0, 3], UniformNoise(UniformNoise.Settings()).poison(round, [0, 3]), strict=True):
        for name, tensor in round.uploads[attacker].items():
            noise = poisoned[name] - tensor
            if name in trained:
                assert noise.min() > 1 - 1e-6
                assert noise.max() < 2 + 1e-6
                assert noise.numel() < 16 or noise.std() > 0.1
            else:
                assert torch.equal(poisoned[name], tensor)


def test_each_attacker_and_each_round_has_its_own_noise(make_round) -> None:
    attack = UniformNoise(UniformNoise.Settings(low=-1, high=1))
    first, second = (
        p["0.weight"] - make_round().uploads[i]["0.weight"] for i, p in enumerate(attack.poison(make_round(), [0, 1]))
    )
    later = attack.poison(make_round(number=2), [0])[0]["0.weight"] - make_round().uploads[0]["0.weight"]
    assert not torch.allclose(first, second)
    assert not torch.allclose(first, later)
