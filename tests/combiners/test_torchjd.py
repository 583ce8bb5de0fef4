"""TorchJD: the adapter, and TorchJD's weightings against the methods of this package."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.combiners.gradients import PROPERTY, gram_of, independent, well_conditioned
from toppo.combiners import FairGrad, Status, make

torch = pytest.importorskip("torch")
aggregation = pytest.importorskip("torchjd.aggregation")
scalarization = pytest.importorskip("torchjd.scalarization")


def ours_and_theirs(ours: str, theirs: str, J: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    G = gram_of(J)
    return make(ours).combine(G).weights @ J, make(f"torchjd:weighting={theirs}").combine(G).weights @ J


@pytest.mark.parametrize(("ours", "theirs"), [("imtl-g", "IMTLG"), ("aligned-mtl", "AlignedMTL"), ("config", "ConFIG")])
@given(J=well_conditioned(max_spread=10))
@PROPERTY
def test_closed_forms_agree(ours: str, theirs: str, J: np.ndarray):
    d, expected = ours_and_theirs(ours, theirs, J)
    # Both invert G or R, whose condition is below 1e4 here.
    np.testing.assert_allclose(d, expected, rtol=0, atol=1e-9 * np.linalg.norm(J, axis=1).max())


def test_mgda_is_what_frank_wolfe_approaches():
    J = independent(np.random.default_rng(0), 5)
    d = make("mgda").combine(gram_of(J)).weights @ J
    weighting = aggregation.MGDAWeighting(epsilon=1e-9, max_iters=20000)
    theirs = weighting(torch.from_numpy(gram_of(J))).numpy() @ J
    assert np.linalg.norm(d) <= np.linalg.norm(theirs) * (1 + 1e-12)
    np.testing.assert_allclose(d, theirs, atol=1e-3)  # the error of Frank-Wolfe falls as one over its steps


@pytest.mark.parametrize(("ours", "theirs"), [("upgrad", "UPGrad"), ("dualproj", "DualProj")])
def test_dual_cone_methods_agree(ours: str, theirs: str):
    pytest.importorskip("quadprog")
    pytest.importorskip("qpsolvers")
    for seed in range(10):
        J = independent(np.random.default_rng(seed), 8)
        d, expected = ours_and_theirs(ours, theirs, J)
        # TorchJD adds 1e-4 to the diagonal of the unit-trace Gram, 8e-4 relative here.
        np.testing.assert_allclose(d, expected, atol=5e-3 * np.linalg.norm(d))


def test_cagrad_agrees_after_the_rescale():
    pytest.importorskip("cvxpy")
    pytest.importorskip("clarabel")
    for c in (0.3, 0.9):
        J = independent(np.random.default_rng(1), 6, spread=3)
        unit = torch.from_numpy(gram_of(J) / np.trace(gram_of(J)))
        theirs = aggregation.CAGradWeighting(c=c)(unit).numpy() / (1 + c**2)
        # CLARABEL's tolerance of 1e-8, after a square root.
        np.testing.assert_allclose(make(f"cagrad:c={c}").combine(gram_of(J)).weights, theirs, atol=1e-4)


def test_fairgrad_agrees_on_well_conditioned_grams():
    pytest.importorskip("scipy")
    for alpha in (0.5, 1.0, 2.0):
        G = gram_of(independent(np.random.default_rng(2), 8))
        theirs = aggregation.FairGradWeighting(alpha=alpha)(torch.from_numpy(G)).numpy()
        np.testing.assert_allclose(FairGrad(alpha).combine(G).weights, theirs, rtol=1e-5)  # least_squares' defaults


@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem that is not DPP")
def test_nash_mtl_agrees_on_well_conditioned_grams():
    pytest.importorskip("cvxpy")
    pytest.importorskip("ecos")
    for seed in range(3):
        J = 10 * independent(np.random.default_rng(seed), 5)
        published = make("torchjd:weighting=NashMTL")
        d, theirs = make("nash-mtl").combine(gram_of(J)).weights @ J, published.combine(gram_of(J)).weights @ J
        # Its solver stops when ||G w - 1/w|| < 1e-3, for a Gram of norm 1 and weights around 1.
        np.testing.assert_allclose(d, theirs, atol=1e-2)
        state = published.state()
        again = make("torchjd:weighting=NashMTL")
        again.restore(state)
        np.testing.assert_array_equal(again.combine(gram_of(J)).weights, published.combine(gram_of(J)).weights)


def test_pcgrad_agrees_on_torchs_own_order():
    J = independent(np.random.default_rng(3), 7, spread=10)
    torch.manual_seed(5)
    theirs = aggregation.PCGradWeighting()(torch.from_numpy(gram_of(J))).numpy()
    torch.manual_seed(5)
    order = np.stack([[j for j in torch.randperm(7).tolist() if j != i] for i in range(7)])
    ours = make("pcgrad:reduction=sum").combine(gram_of(J), order=order).weights
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_gradvac_agrees_on_torchs_own_order_call_after_call():
    rng = np.random.default_rng(4)
    weighting = aggregation.GradVacWeighting(beta=0.5, eps=0.0)
    ours = make("gradvac:beta=0.5,reduction=sum")
    for call in range(4):
        J = independent(rng, 6)
        torch.manual_seed(call)
        theirs = weighting(torch.from_numpy(gram_of(J))).numpy()
        torch.manual_seed(call)
        order = []
        for i in range(6):
            others = [j for j in range(6) if j != i]
            order.append([others[k] for k in torch.randperm(5).tolist()])
        np.testing.assert_allclose(ours.combine(gram_of(J), order=np.array(order)).weights, theirs, rtol=1e-9)


def loss_weights(scalarizer, losses: np.ndarray) -> np.ndarray:
    values = torch.tensor(losses, requires_grad=True)
    scalarizer(values).backward()
    return values.grad.numpy()


def test_dwa_agrees():
    theirs, ours = scalarization.DWA(), make("dwa")
    for losses in np.random.default_rng(5).uniform(0.5, 2, size=(6, 4)):
        expected = loss_weights(theirs, losses)
        theirs.step()
        np.testing.assert_allclose(ours.combine(np.eye(4), losses=losses).weights, expected, rtol=1e-12)


def test_famo_agrees_when_the_next_losses_are_the_losses_after_the_step():
    theirs, ours = scalarization.FAMO(4).double(), make("famo")
    for t, losses in enumerate(np.random.default_rng(6).uniform(0.5, 2, size=(20, 4))):
        if t:
            theirs.update(torch.tensor(losses))
        # TorchJD adds 1e-8 to the losses. Our FAMO rejects losses that are not positive.
        np.testing.assert_allclose(
            ours.combine(np.eye(4), losses=losses).weights, loss_weights(theirs, losses), rtol=1e-6
        )


def test_uncertainty_weighting_agrees_under_sgd():
    theirs, ours = scalarization.UW(4).double(), make("uw:lr=0.05")
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05)
    for losses in np.random.default_rng(7).uniform(0.5, 2, size=(20, 4)):
        optimizer.zero_grad()
        expected = loss_weights(theirs, losses)
        optimizer.step()
        np.testing.assert_allclose(ours.combine(np.eye(4), losses=losses).weights, expected, rtol=1e-12)


@pytest.mark.parametrize("weighting", ["AlignedMTL", "ConFIG", "IMTLG", "MGDA"])
@given(seed=st.integers(0, 2**31), exponent=st.integers(-10, 10))
@PROPERTY
def test_the_adapter_works_at_every_scale(weighting: str, seed: int, exponent: int):
    J = independent(np.random.default_rng(seed), 5)
    combiner = make(f"torchjd:weighting={weighting}")
    w = combiner.combine(gram_of(J)).weights
    scaled = combiner.combine(gram_of(J * 10.0**exponent)).weights
    assert scaled.dtype == np.float64
    # Scaling to unit trace makes them equal, except for the rounding of that division times the condition number.
    np.testing.assert_allclose(scaled, w, rtol=1e-6, atol=1e-9)


def test_the_adapter_gives_no_gradient_its_name():
    assert make("torchjd:weighting=MGDA").combine(np.zeros((3, 3))).record.status == Status.NO_GRADIENT


def test_a_missing_torchjd_is_one_clear_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(ImportError, match=r"torchjd:weighting=MGDA needs torchjd.*pip install 'toppo\[torchjd\]'"):
        make("torchjd:weighting=MGDA").combine(np.eye(2))


def test_a_missing_torchjd_is_told_before_the_training(monkeypatch: pytest.MonkeyPatch):
    make("torchjd").check_use(2)
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(ImportError, match="needs torchjd"):
        make("torchjd").check_use(2)
