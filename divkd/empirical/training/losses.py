"""Losses on member logits (M, B, K), averaged over the M*B pairs of member and image."""

from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-1/(M B) sum_mb log softmax(logits_mb)[labels_b]. Logits (M, B, K), labels (B,) -> a scalar, in nats."""
    return F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)))


def kd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """t^2 / (M B) sum_mb KL( softmax(T_mb / t) || softmax(S_mb / t) )  (Nam et al. 2021, section 2.2, one-to-one).

    Student (M or 1, B, K), teacher (M, B, K) logits -> a scalar. One student row serves every teacher, which for its
    gradient equals distilling from the mean of the teachers' tempered probabilities (Hinton et al. 2015).
    """
    log_q = F.log_softmax(student / temperature, -1)
    log_p = F.log_softmax(teacher / temperature, -1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1)
    return temperature**2 * kl.mean()
