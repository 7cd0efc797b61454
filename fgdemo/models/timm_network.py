"""A plain timm model with its own classifier."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fgdemo.errors import UserError
from fgdemo.models.encoder import Encoder
from fgdemo.models.encoder_config import describe_encoder, encoder_arguments
from fgdemo.models.network import Network, NetworkOutput, register_network


@register_network("timm")
class TimmNetwork(Network):
    """timm's model as it is: `weights()` has exactly timm's keys and logits equal `net(images)`.

    Raises:
        UserError: fewer than one class, or anything `Encoder` refuses.
    """

    def __init__(
        self,
        architecture: str,
        *,
        num_classes: int,
        pretrained: bool = False,
        weights: str | None = None,
        img_size: int | tuple[int, int] | None = None,
        model_args: dict[str, Any] | None = None,
        data_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise UserError(f"A classifier needs at least one class, not {num_classes}.")
        self.num_classes = num_classes
        self.encoder = Encoder(
            architecture,
            pretrained=pretrained,
            weights=weights,
            img_size=img_size,
            num_classes=num_classes,
            model_args=model_args,
            data_config=data_config,
        )

    def forward(self, images: Tensor) -> NetworkOutput:
        net = self.encoder.net
        features = net.forward_features(images)
        # Not every timm classifier is one linear layer on the pre-logits (distilled models average two), so
        # the head runs for the logits and its cheap pooling once more for the embedding.
        return NetworkOutput(net.forward_head(features), net.forward_head(features, pre_logits=True))

    def head_modules(self) -> tuple[nn.Module, ...]:
        classifier = self.encoder.net.get_classifier()
        return tuple(classifier) if isinstance(classifier, tuple | list | nn.ModuleList) else (classifier,)

    def new_modules(self) -> tuple[str, ...]:
        if not (self.encoder.is_pretrained and self.encoder.classifier_is_new):
            return ()
        names = {id(module): name for name, module in self.named_modules()}
        return tuple(names[id(module)] for module in self.head_modules())

    def config(self) -> dict[str, Any]:
        """timm's schema: `timm.create_model("local-dir:DIR", pretrained=True)` rebuilds the model from it."""
        return describe_encoder(self.encoder, self.num_classes)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TimmNetwork:
        """Raises UserError where the installed timm lacks the model or refuses its arguments."""
        return cls(num_classes=config["num_classes"], **encoder_arguments(config))

    def _exported(self) -> nn.Module:
        return self.encoder.net
