"""What a table row says of a model's predictions: quality, calibrated quality, diversity."""

from torch import Tensor

from divkd.shared.calibration import apply_temperature, fit_temperature
from divkd.shared.errors import InputError
from divkd.shared.metrics import accuracy, brier, check_log_probs, ece, ensemble_log_probs, nll, pairwise_kl


def evaluate(
    val_log_probs: Tensor, val_labels: Tensor, test_log_probs: Tensor, test_labels: Tensor
) -> dict[str, float]:
    """The flat row {acc, nll, brier, ece, temperature, temperature_at_bound, cal_nll, cal_brier, cal_ece, pairwise_kl}.

    Every value is measured on the test split with the definitions of `divkd.shared.metrics`; the temperature is
    fitted on the validation split alone and only applied to the test split. `temperature_at_bound` is True where
    that fit ended at an end of its range, which makes the calibrated values a statement about the range.

    val_log_probs (M, N_val, K), test_log_probs (M, N_test, K), labels (N_val,) and (N_test,) integers in 0..K-1.
    Raises `InputError` where an array is unusable or the two splits differ in members or classes.
    """
    val_shape, test_shape = check_log_probs(val_log_probs).shape, check_log_probs(test_log_probs).shape
    if (val_shape[0], val_shape[2]) != (test_shape[0], test_shape[2]):
        raise InputError(
            f"validation has shape {tuple(val_shape)} and test {tuple(test_shape)}; members and classes (the first "
            "and the last number) must be the same: predict both splits with the same model"
        )
    temperature = fit_temperature(val_log_probs, val_labels)
    pooled = ensemble_log_probs(test_log_probs.detach())
    raw, calibrated = pooled[None], apply_temperature(pooled, temperature.value)[None]
    return {
        "acc": accuracy(raw, test_labels),
        "nll": nll(raw, test_labels),
        "brier": brier(raw, test_labels),
        "ece": ece(raw, test_labels),
        "temperature": temperature.value,
        "temperature_at_bound": temperature.at_bound,
        "cal_nll": nll(calibrated, test_labels),
        "cal_brier": brier(calibrated, test_labels),
        "cal_ece": ece(calibrated, test_labels),
        "pairwise_kl": pairwise_kl(test_log_probs),
    }
