"""What a simulated claim's error says of its bound, and of the prediction for the sizes that were simulated.

Two questions with an answer each, from what results.json holds of the claim: the theory writes them there, and the
report asks them of runs that are older.
"""

from collections.abc import Mapping
from typing import Any

from divkd.shared.kinds import CLAIMS

TOLERANCE = 0.02  # of "as predicted": two standard errors of 2,000 test samples at an error of one half, 0.022
DIGITS = 3  # errors are judged as tables show them: no "yes" beside a number that misses its bound

# More members take these below their bound; the other claims are of one network, or of two.
OF_MANY = ("ensemble", "distilled", "ensemble_of_distilled")


def verdicts(name: str, claim: Mapping[str, Any]) -> dict[str, Any]:
    """{theorem, bound, prediction, accepted, why} of the claim `name` with its keys of results.json.

    theorem      whether its `bound` is a theorem's, and not what is expected of a control, or of other than two views
    bound        whether the mean error on single-view samples lies in it; None where there is none
    prediction   whether that error is within TOLERANCE of `predicted`
    accepted     whether it is `accepted` here, in a regime chosen for its claims to hold
    why          "too few members" where the bound is missed and the prediction for so many members misses it too
    """
    error, predicted = (round(value, DIGITS) for value in (claim["single_view_error"]["mean"], claim["predicted"]))
    bound = claim["bound"]
    within = None if bound is None else bound[0] <= error <= bound[1]
    few = within is False and name in OF_MANY and min(error, predicted) > bound[1]
    return {
        "theorem": bound is not None and CLAIMS[name].theorem and claim.get("views", 2) == 2,
        "bound": within,
        "prediction": round(abs(error - predicted), DIGITS) <= TOLERANCE,
        "accepted": claim["holds"],
        "why": "too few members" if few else "",
    }
