"""The rows of the ablation: which options each one changes, and against which other row it is read."""

from __future__ import annotations

from dataclasses import dataclass

# What all rows share: the recipe cifar10-resnet20 without fading, and a shortcut around each convolution.
RECIPE = "cifar10-resnet20"
COMMON = (
    "convert.shortcut=per_convolution",
    "estimator.gradual_inputs=0",
    "estimator.gradual_weights=0",
    "estimator.gradual_structure=0",
)

STE = ("estimator.weights=ste", "estimator.inputs=ste")
LABELS = ("distill.label_weight=1", "distill.logit_weight=0")
LOGITS = ("distill.label_weight=0", "distill.logit_weight=1", "distill.temperature=4")
BOTH = ("distill.label_weight=1", "distill.logit_weight=1", "distill.temperature=4")
RBD = ("distill.rbd_weight=1",)
NO_IMB = ("convert.balance_weights=false", "convert.scale_weights=false")
DTE = ("estimator.weights=dte", "estimator.inputs=dte")
GRADUAL = ("estimator.gradual_inputs=0.5", "estimator.gradual_weights=0.5")
GRADUAL_SHORT = ("estimator.gradual_inputs=0.25", "estimator.gradual_weights=0.25")
CHANNELS = ("distill.attention=channels", "distill.distance=cosine")
HARDTANH = "convert.activation=hardtanh"


@dataclass(frozen=True)
class Variant:
    """One row: ``options`` on top of COMMON; it differs by one thing from the row ``against``."""

    key: str
    title: str
    options: tuple[str, ...]
    against: str = ""


VARIANTS = (
    Variant("ste", "straight-through estimator, labels", (*STE, *NO_IMB, *LABELS)),
    Variant("imb", "+ IMB: balanced and scaled weights", (*STE, *LABELS), "ste"),
    *(
        Variant(
            f"dte{epsilon}",
            f"+ DTE, epsilon {epsilon}",
            (*DTE, f"estimator.epsilon={epsilon}", *LABELS),
            "imb",
        )
        for epsilon in ("0", "0.05", "0.1", "0.2")
    ),
    Variant(
        "dte_narrow",
        "DTE's t from 0.67 to 2 instead of 0.1 to 10",
        (*DTE, "estimator.t_min=0.67", "estimator.t_max=2", *LABELS),
        "dte0.1",
    ),
    # DTE's slope ends nowhere while t < 1, so that something in front of sign() has to bound its input.
    # Hardtanh does, as in the paper's networks; the common RPReLU doesn't.
    Variant("imb_hardtanh", "IMB, Hardtanh instead of RPReLU", (*STE, *LABELS, HARDTANH), "imb"),
    Variant("dte_hardtanh", "+ DTE, epsilon 0.1, with Hardtanh", (*DTE, *LABELS, HARDTANH), "imb_hardtanh"),
    Variant("rbd_hardtanh", "+ RBD, with Hardtanh", (*DTE, *LABELS, *RBD, HARDTANH), "dte_hardtanh"),
    Variant("rbd", "+ RBD", (*DTE, *LABELS, *RBD), "dte0.1"),
    Variant("logits", "+ logit distillation", (*DTE, *LOGITS, *RBD), "rbd"),
    Variant("no_rbd", "logit distillation alone", (*DTE, *LOGITS), "logits"),
    Variant("polynomial", "polynomial estimator instead of DTE", LOGITS, "no_rbd"),
    Variant("ste_logits", "straight-through instead of polynomial estimator", (*STE, *LOGITS), "polynomial"),
    Variant("polynomial_labels", "labels instead of logits", LABELS, "polynomial"),
    Variant("polynomial_both", "labels beside logits", BOTH, "polynomial"),
    Variant(
        "reste",
        "ReSTE instead of DTE",
        ("estimator.weights=reste", "estimator.inputs=reste", *LOGITS),
        "no_rbd",
    ),
    Variant("two_step", "+ two-step training", (*LOGITS, "finetune.inputs_first=0.5"), "polynomial"),
    Variant("gradual", "+ gradual binarization", (*LOGITS, *GRADUAL), "polynomial"),
    Variant(
        "gradual_long",
        "fading over four fifths of the training instead of half",
        (*LOGITS, "estimator.gradual_inputs=0.8", "estimator.gradual_weights=0.8"),
        "gradual",
    ),
    Variant(
        "gradual_short",
        "fading over a quarter of the training instead of half",
        (*LOGITS, *GRADUAL_SHORT),
        "gradual",
    ),
    Variant(
        "gradual_structure",
        "+ activations and shortcuts fade too",
        (*LOGITS, *GRADUAL_SHORT, "estimator.gradual_structure=0.25"),
        "gradual_short",
    ),
    Variant(
        "gradual_rbd",
        "+ RBD, gradual",
        (*LOGITS, *GRADUAL_SHORT, *RBD),
        "gradual_short",
    ),
    Variant(
        "gradual_channels",
        "+ RBD of whole representations, gradual",
        (*LOGITS, *GRADUAL_SHORT, *RBD, *CHANNELS),
        "gradual_short",
    ),
    Variant(
        "gradual_channels16",
        "the same with a weight of 16 instead of 1",
        (*LOGITS, *GRADUAL_SHORT, "distill.rbd_weight=16", *CHANNELS),
        "gradual_channels",
    ),
    Variant(
        "gradual_ste",
        "straight-through instead of polynomial estimator, gradual",
        (*STE, *LOGITS, *GRADUAL),
        "gradual",
    ),
    Variant(
        "gradual_inputs",
        "only inputs fade",
        (*LOGITS, "estimator.gradual_inputs=0.5"),
        "gradual",
    ),
    Variant(
        "gradual_weights",
        "only weights fade",
        (*LOGITS, "estimator.gradual_weights=0.5"),
        "gradual",
    ),
    Variant("ema", "+ moving average of the weights", (*LOGITS, "finetune.ema_decay=0.999"), "polynomial"),
    Variant("hardtanh", "Hardtanh instead of RPReLU", (*LOGITS, HARDTANH), "polynomial"),
    Variant(
        "original_shortcuts",
        "the network's own shortcuts",
        (*LOGITS, "convert.shortcut=original"),
        "polynomial",
    ),
    Variant(
        "gradual_original",
        "the network's own shortcuts, gradual",
        (*LOGITS, *GRADUAL_SHORT, "convert.shortcut=original"),
        "gradual_short",
    ),
    Variant(
        "fixed_thresholds",
        "thresholds stay where they begin",
        (*LOGITS, "convert.learn_threshold=false"),
        "polynomial",
    ),
)
