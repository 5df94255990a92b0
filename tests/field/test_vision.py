"""Segmentation, autoencoders, denoisers and a GAN by networks of monai and diffusers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from landscape_test_field.harness import check
from landscape_test_support.kind import Kind, Learns, loader
from torch.utils.data import TensorDataset

monai = pytest.importorskip("monai")
diffusers = pytest.importorskip("diffusers")
from monai.losses import DiceLoss  # noqa: E402
from monai.networks import nets  # noqa: E402


def pictures() -> Any:
    """Return a loader of pictures of 8 × 8 pixels and masks where they are bright."""
    x = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return loader(TensorDataset(x, (F.avg_pool2d(x, 3, 1, 1) > 0.5).float()), batch_size=10)


class Segments(Learns):
    """A U-Net trained on the Dice loss."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.loss = nets.UNet(2, 1, 1, channels=(3, 4), strides=(2,), num_res_units=1), DiceLoss(sigmoid=True)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, mask = batch
        return self.loss(self.net(x), mask)


class Encodes(Learns):
    """A variational autoencoder: sums over pixels and codes, divided by the number of pictures."""

    lr = 0.001

    def __init__(self) -> None:
        super().__init__()
        self.net = nets.VarAutoEncoder(2, (1, 8, 8), 1, latent_size=2, channels=(2, 3), strides=(2, 2), norm="batch")

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, _ = batch
        made, mean, logvar, _ = self.net(x)
        divergence = -0.5 * torch.sum(1 + logvar - mean.pow(2) - logvar.exp())
        return (F.mse_loss(made, x, reduction="sum") + divergence) / len(x)


class Denoises(Learns):
    """A diffusion model: predicts the noise that was added at random times."""

    lr = 0.01

    def __init__(self) -> None:
        super().__init__()
        self.net = diffusers.UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(4,),
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
            norm_num_groups=2,
            attention_head_dim=4,
            add_attention=False,
        )
        self.scheduler = diffusers.DDPMScheduler(num_train_timesteps=20)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, _ = batch
        noise = torch.randn_like(x)
        times = torch.randint(20, (len(x),))
        return F.mse_loss(self.net(self.scheduler.add_noise(x, noise, times), times).sample, noise)


class Competes(Learns):
    """A GAN with manual optimisation, measured by the generator's loss."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nets.Generator((4,), (2, 4, 4), (3, 1), (2, 1), num_res_units=0)
        self.critic = nets.Discriminator((1, 8, 8), (2, 2), (2, 2), num_res_units=0)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        first, second = self.optimizers()
        first.zero_grad()
        self.manual_backward(self.landscape_loss(batch))
        first.step()
        second.zero_grad()
        x, _ = batch
        real, made = self.critic(x), self.critic(self.generator(x[:, 0, 0, :4]).detach())
        ones, zeros = torch.ones_like(real), torch.zeros_like(made)
        self.manual_backward(F.binary_cross_entropy(real, ones) + F.binary_cross_entropy(made, zeros))
        second.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), lr=0.02) for part in (self.generator, self.critic)]

    def landscape_loss(self, batch: Any) -> torch.Tensor:
        x, _ = batch
        judged = self.critic(self.generator(x[:, 0, 0, :4]))
        return F.binary_cross_entropy(judged, torch.ones_like(judged))


def test_unet_segments(tmp_path):
    check(Kind("U-Net", "", Segments, pictures), tmp_path)


def test_variational_autoencoder(tmp_path):
    # In eval mode monai adds to the standard deviation in place, which cannot be differentiated.
    check(Kind("VAE", "", Encodes, pictures, common={"mode": "train"}), tmp_path)


def test_diffusion_model_denoises(tmp_path):
    check(Kind("denoiser", "", Denoises, pictures, common={"noise_seed": 0}), tmp_path)


def test_gan_by_its_landscape_loss(tmp_path):
    check(Kind("GAN", "", Competes, pictures), tmp_path)
