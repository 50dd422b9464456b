"""What a table row says of a model's predictions: quality, calibrated quality, diversity."""

from torch import Tensor

from divkd.shared.errors import InputError
from divkd.shared.metrics.calibration import Temperature, apply_temperature, fit_temperature
from divkd.shared.metrics.checks import check_labels, check_log_probs
from divkd.shared.metrics.quality import ece_of, ensemble_log_probs, pairwise_kl, sample_scores


def evaluate(
    val_log_probs: Tensor, val_labels: Tensor, test_log_probs: Tensor, test_labels: Tensor
) -> dict[str, float]:
    """The flat row {acc, nll, brier, ece, temperature, temperature_at_bound, cal_nll, cal_brier, cal_ece, pairwise_kl}.

    Every value is measured on the test split with the definitions of `divkd.shared.metrics.quality`; the temperature is
    fitted on the validation split alone and only applied to the test split. `temperature_at_bound` is True where
    that fit ended at an end of its range, which makes the calibrated values a statement about the range.

    val_log_probs (M, N_val, K), test_log_probs (M, N_test, K), labels (N_val,) and (N_test,) integers in 0..K-1.
    Raises `InputError` where an array is unusable or the two splits differ in members or classes.
    """
    val_shape = check_log_probs(val_log_probs, "val_log_probs").shape
    test_shape = check_log_probs(test_log_probs, "test_log_probs").shape
    if (val_shape[0], val_shape[2]) != (test_shape[0], test_shape[2]):
        raise InputError(
            f"validation has shape {tuple(val_shape)} and test {tuple(test_shape)}; members and classes (the first "
            "and the last number) must be the same: predict both splits with the same model"
        )
    val_labels = check_labels(val_labels, val_log_probs, "val_labels")
    test_labels = check_labels(test_labels, test_log_probs, "test_labels")
    pooled = ensemble_log_probs(test_log_probs.detach())
    temperature = fit_temperature(val_log_probs, val_labels)
    row = quality(sample_scores(pooled[None], test_labels)) | calibrated(pooled, test_labels, temperature)[0]
    return row | {"pairwise_kl": pairwise_kl(test_log_probs)}


def quality(scores: dict[str, Tensor]) -> dict[str, float]:
    """{acc, nll, brier, ece} from `divkd.shared.metrics.quality.sample_scores`."""
    means = {name: float(scores[key].mean()) for name, key in (("acc", "correct"), ("nll", "nll"), ("brier", "brier"))}
    return means | {"ece": ece_of(scores["confidence"], scores["correct"])}


def calibrated(pooled: Tensor, labels: Tensor, temperature: Temperature) -> tuple[dict[str, float], dict[str, Tensor]]:
    """{temperature, temperature_at_bound, cal_nll, cal_brier, cal_ece} and the calibrated predictions' scores.

    pooled (N, K) as `ensemble_log_probs` gives it, labels (N,), and a temperature fitted elsewhere.
    """
    scores = sample_scores(apply_temperature(pooled, temperature.value)[None], labels)
    row = {f"cal_{name}": value for name, value in quality(scores).items() if name != "acc"}
    return {"temperature": temperature.value, "temperature_at_bound": temperature.at_bound, **row}, scores
