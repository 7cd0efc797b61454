"""A plain timm model with its own classifier."""

from __future__ import annotations

from typing import Any

from timm.models import is_model
from torch import Tensor, nn

from fgdemo.errors import UserError
from fgdemo.models.encoder import Encoder
from fgdemo.models.network import Network, NetworkOutput, register_network

# What a trained model's configuration does not inherit: where its first weights were, what they classified,
# and test sizes recommended for them.
_SOURCE_KEYS = (
    {"url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load", "architecture"}
    | {"num_classes", "label_offset", "label_names", "label_descriptions"}
    | {"test_input_size", "test_crop_pct", "test_pool_size", "min_input_size", "pool_size"}
)
_PROVENANCE_KEYS = {"tag", "license", "description", "origin_url", "paper_name", "paper_ids", "notes"}


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
        encoder = self.encoder
        net = encoder.net
        published = net.pretrained_cfg
        dropped = _SOURCE_KEYS if encoder.is_pretrained else _SOURCE_KEYS | _PROVENANCE_KEYS
        model_args = dict(encoder.model_args)
        if encoder.takes_img_size:
            model_args["img_size"] = list(encoder.input_size)
        pool = getattr(net, "global_pool", None)
        config = {
            "architecture": published.get("architecture") or encoder.name.partition(".")[0],
            "num_classes": self.num_classes,
            "num_features": net.num_features,
            "global_pool": pool if isinstance(pool, str) else None,
            "model_args": model_args,
            "pretrained_cfg": {
                **{k: _jsonable(v) for k, v in published.items() if k not in dropped},
                **{k: _jsonable(v) for k, v in encoder.data_config.items()},
                "num_classes": self.num_classes,
                "pool_size": None,
                "custom_load": False,
            },
        }
        return {k: v for k, v in config.items() if v is not None}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TimmNetwork:
        """Raises UserError where the installed timm lacks the model or refuses its arguments."""
        architecture = config["architecture"]
        if not is_model(architecture):
            raise UserError(
                f"The checkpoint needs timm's model {architecture!r}, which the installed timm does not have: "
                "upgrade timm."
            )
        model_args = dict(config.get("model_args") or {})
        cfg = config["pretrained_cfg"]
        size = model_args.pop("img_size", None) or cfg["input_size"][1:]
        return cls(
            architecture,
            num_classes=config["num_classes"],
            img_size=tuple(size) if not isinstance(size, int) else size,
            model_args=model_args,
            data_config=cfg,
        )

    def _exported(self) -> nn.Module:
        return self.encoder.net


def _jsonable(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
