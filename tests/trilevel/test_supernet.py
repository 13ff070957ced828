"""The supernet against the networks that it contains, and what it does not compute."""

import random
import weakref
from typing import Any

import pytest
import torch
from torch import nn

from hwnas.networks.trilevel import CELL
from hwnas.operators.blocks import ShortcutBlock
from hwnas.operators.layers import FloatLayers
from hwnas.searches.trilevel.choices import TrilevelChoices, pack, unpack
from hwnas.searches.trilevel.relaxation import PathRelaxation, Relaxation
from hwnas.searches.trilevel.search import scores_of
from hwnas.searches.trilevel.superkernel import SuperConvolution, SuperLayer
from hwnas.searches.trilevel.supernet import SuperCell, TrilevelSupernet
from hwnas.spaces.trilevel import CellChoice, TrilevelSpace
from tests.trilevel.searching import everything, small_space

NAMES = ("trilevel-a", "trilevel-b", "autodeeplab", "agd")


def supernet_of(space: TrilevelSpace, relaxation: Relaxation = "softmax") -> TrilevelSupernet:
    torch.manual_seed(0)
    return TrilevelSupernet(space, relaxation, PathRelaxation(space.graph, relaxation, "none", 0.0))


def convolutions(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d | SuperConvolution)]


def on_the_path(supernet: TrilevelSupernet, path: int, cells: list[CellChoice]) -> list[nn.Module]:
    """Convolutions in the order of the derived network; shortcuts that it does not have are made to do nothing."""
    space, left = supernet.space, list(cells)
    found = convolutions(supernet.stem)
    trunk = convolutions(supernet.trunk) if supernet.trunk is not None else []
    for number in space.graph.members[path]:
        module = supernet.path_modules[number]
        if space.graph.modules[number].kind != CELL:
            found += trunk + convolutions(module)
            trunk = []
            continue
        cell = left.pop(0)
        widths = [space.channels, *(space.widths[i] for i in cell.widths), space.channels]
        for i, layer in enumerate(module.layers):
            operator = layer.operators[cell.operators[i]]
            mine = convolutions(operator)
            if isinstance(operator, ShortcutBlock):
                assert isinstance(operator.shortcut, SuperConvolution)
                mine.remove(operator.shortcut)
                if widths[i] == widths[i + 1]:
                    eye = torch.eye(operator.shortcut.weight.shape[0])[..., None, None]
                    operator.shortcut.weight.data.copy_(eye)
                else:
                    mine.insert(0, operator.shortcut)
            found += mine
    return found + trunk + convolutions(supernet.header)


@pytest.mark.parametrize("bicubic", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_cut_to_a_choice_it_computes_what_the_derived_network_does(name: str, bicubic: bool) -> None:
    space = small_space(name, layers=3, bicubic=bicubic, scale=4)
    supernet = supernet_of(space).eval()
    choices = TrilevelChoices(space, scores_of(supernet))
    rng = random.Random(0)
    x = torch.rand(2, 3, 6, 5)
    for path in range(len(space.graph.paths)):
        cells = [
            CellChoice(
                tuple(rng.randrange(len(space.operators)) for _ in range(space.layers)),
                tuple(rng.randrange(len(space.widths)) for _ in range(space.layers - 1)),
            )
            for _ in range(space.graph.paths[path].count(CELL))
        ]
        choice = pack(path, cells)
        derived = choices.space.chosen(choice).build(FloatLayers()).eval()
        theirs, ours = convolutions(derived), on_the_path(supernet, path, cells)
        assert len(theirs) == len(ours)
        with torch.no_grad():
            for target, source in zip(theirs, ours, strict=True):
                out, read, *_ = target.weight.shape
                target.weight.copy_(source.weight[:out, :read])
                if target.bias is not None:
                    target.bias.copy_(source.bias)
            supernet.choose(choice)
            torch.testing.assert_close(supernet(x), derived(x), atol=1e-5, rtol=1e-4)


# Not of a trellis: what leaves a node is weighed against each other, not the node, so that one that is never reached
# still adds its biases (AutoDeepLab).
@pytest.mark.parametrize("name", ["trilevel-a", "trilevel-b", "agd"])
def test_where_the_alphas_are_certain_it_is_the_choice_alone(name: str) -> None:
    space = small_space(name, layers=2, scale=4)
    supernet = supernet_of(space, "sparsestmax").eval()
    supernet.progress = 1.0
    choice = random.Random(1).choice(list(everything(space)))
    path, cells = unpack(choice, space)
    with torch.no_grad():
        network, operators, widths = supernet.alphas
        network[path] = 10.0
        numbers = [sum(m.kind == CELL for m in space.graph.modules[:i]) for i in space.graph.members[path]]
        kinds = [space.graph.modules[i].kind for i in space.graph.members[path]]
        for number, cell in zip([n for n, k in zip(numbers, kinds, strict=True) if k == CELL], cells, strict=True):
            operators[number, range(space.layers), list(cell.operators)] = 10.0
            widths[number, range(space.layers - 1), list(cell.widths)] = 10.0
        x = torch.rand(1, 3, 6, 6)
        mixed = supernet(x)
        supernet.choose(choice)
        torch.testing.assert_close(mixed, supernet(x), atol=1e-5, rtol=1e-4)
    likeliest = TrilevelChoices(space, scores_of(supernet)).best([])
    assert likeliest == choice


def count_calls(module: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    called: list[nn.Module] = []
    for part in module.modules():
        if isinstance(part, kind):
            part.register_forward_hook(lambda m, *_: called.append(m))
    return called


def test_what_no_path_of_weight_needs_is_not_computed() -> None:
    space = small_space("trilevel-b", cells=3, layers=2)
    supernet = supernet_of(space, "sparsestmax")
    cells = count_calls(supernet, SuperCell)
    supernet(torch.rand(1, 3, 6, 6))
    everything_of = sum(module.kind == CELL for module in space.graph.modules)
    assert len(cells) == everything_of
    cells.clear()
    supernet.progress = 1.0
    path = int(supernet.relaxed().paths.argmax())
    supernet(torch.rand(1, 3, 6, 6)).mean().backward()
    assert len(cells) == space.graph.paths[path].count(CELL) < everything_of
    # And what was not computed has no gradient.
    unused = [i for i, share in enumerate(supernet.relaxed().modules.tolist()) if share == 0]
    assert unused and all(p.grad is None for i in unused for p in supernet.path_modules[i].parameters())


def test_operators_of_no_weight_are_not_computed() -> None:
    space = small_space("trilevel-b", layers=2)
    supernet = supernet_of(space, "sparsestmax")
    called = count_calls(supernet, SuperConvolution)
    supernet(torch.rand(1, 3, 6, 6))
    before = len(called)
    called.clear()
    with torch.no_grad():
        supernet.alphas[1][..., 0] = 10.0  # skip, everywhere
    supernet(torch.rand(1, 3, 6, 6))
    layers = sum(isinstance(m, SuperLayer) for m in supernet.modules())
    assert len(called) == layers < before


@pytest.mark.parametrize("mode", ["max", "min", "random", "gumbel"])
def test_widths_are_those_of_the_mode(mode: Any) -> None:
    space = small_space("trilevel-b", cells=3, layers=4, widths=(2, 4, 8), operators=("conv3x3",))
    supernet = supernet_of(space)
    supernet.mode = mode
    torch.manual_seed(0)
    seen = set()
    for part in supernet.modules():
        if isinstance(part, SuperConvolution):
            part.register_forward_hook(lambda m, x, y: seen.add((x[0].shape[1], y.shape[1])))
    supernet(torch.rand(1, 3, 6, 6))
    sides = {side for pair in seen for side in pair}
    if mode in ("max", "min"):
        assert sides == {"max": {8}, "min": {2, 8}}[mode]
    else:
        assert len({pair for pair in seen if 8 not in pair}) > 1 and sides <= {2, 4, 8}


def test_scores_of_widths_have_gradients_when_they_are_drawn() -> None:
    supernet = supernet_of(small_space("trilevel-b", layers=3))
    for mode, has in (("gumbel", True), ("max", False)):
        supernet.mode = mode  # type: ignore[assignment]
        supernet.zero_grad()
        supernet(torch.rand(2, 3, 6, 6)).square().mean().backward()
        grad = supernet.alphas[2].grad
        assert (grad is not None and bool(grad.abs().sum() > 0)) == has


def test_a_grouped_superkernel_convolves_as_a_grouped_convolution() -> None:
    space = small_space("trilevel-b", operators=("conv3x3_g4",), layers=2)
    layer = SuperLayer(space, first=False)
    x = torch.rand(1, 4, 5, 5)
    out = layer(x, torch.ones(1), [1.0], 4)
    weight = layer.operators[0].blocks[0].conv.weight
    expected = torch.cat([nn.functional.conv2d(x[:, i : i + 1], weight[i : i + 1, :1], padding=1) for i in range(4)], 1)
    torch.testing.assert_close(out, expected.relu())


# Mixtures


def naive(supernet: TrilevelSupernet, x: torch.Tensor) -> torch.Tensor:
    """Equation 1 and its like, written out: every path by itself, every operator, no node twice."""
    relaxed, graph = supernet.relaxed(), supernet.graph
    widths = supernet.alphas[2].argmax(-1).tolist()
    numbers = {i: sum(m.kind == CELL for m in graph.modules[:i]) for i in range(len(graph.modules))}

    def cell(i: int, x: torch.Tensor) -> torch.Tensor:
        y, number = x, numbers[i]
        for layer, superlayer in enumerate(supernet.path_modules[i].layers):
            last = layer == supernet.space.layers - 1
            written = supernet.space.channels if last else supernet.space.widths[widths[number][layer]]
            for part in superlayer.modules():
                if isinstance(part, SuperConvolution):
                    part.written = written
            weights = relaxed.operators[number, layer]
            y = torch.stack([w * operator(y) for w, operator in zip(weights, superlayer.operators, strict=True)]).sum(0)
        return 0.2 * y + x

    def node(target: int) -> torch.Tensor:
        if target == 0:
            return supernet.stem(x)
        made = []
        for i, module in enumerate(graph.modules):
            if module.target == target:
                source = node(module.source)
                if supernet.trunk is not None and module.kind != CELL and module.resolution == module.factor:
                    source = supernet.trunk(source) + node(0)
                out = cell(i, source) if module.kind == CELL else supernet.path_modules[i](source)
                made.append(relaxed.edges[i] * out)
        return torch.stack(made).sum(0)

    if graph.is_trellis:
        return supernet.header(node(graph.ends[0]))
    ends = [share * node(end) for share, end in zip(relaxed.paths, graph.ends, strict=True)]
    return supernet.header(torch.stack(ends).sum(0))


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_weighted_sum_of_all_paths_and_operators(name: str) -> None:
    supernet = supernet_of(small_space(name, layers=3, scale=4)).double().eval()
    with torch.no_grad():
        for alpha in supernet.alphas:
            alpha.copy_(torch.randn_like(alpha))
    x = torch.rand(1, 3, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(supernet(x), naive(supernet, x))
    # And so are the gradients of the alphas.
    for kind in (0, 1):
        ours, theirs = (
            torch.autograd.grad(f.square().sum(), supernet.alphas[kind]) for f in (supernet(x), naive(supernet, x))
        )
        torch.testing.assert_close(ours, theirs)
        assert ours[0].abs().sum() > 0 or len(supernet.graph.paths) == 1


@pytest.mark.parametrize("layer", [0, 1])
def test_a_width_is_scored_where_it_is_written(layer: int) -> None:
    space = small_space("trilevel-b", cells=1, layers=3, operators=("conv3x3",))
    cell = supernet_of(space).path_modules[0]
    x, one = torch.rand(1, 8, 5, 5), torch.ones(3, 1)
    scores = torch.ones(2)
    scores[layer] = 0.0
    # What is multiplied by nothing leaves nothing: convolutions in cells have no biases.
    torch.testing.assert_close(cell(x, one, one.tolist(), [1, 1], scores), x)
    half = torch.ones(2)
    half[layer] = 0.5
    plain = cell(x, one, one.tolist(), [1, 1], torch.ones(2)) - x
    torch.testing.assert_close(cell(x, one, one.tolist(), [1, 1], half) - x, 0.5 * plain)


@pytest.mark.parametrize(("name", "relaxation"), [(n, r) for n in NAMES for r in ("sparsestmax", "softmax")])
def test_the_likeliest_path_is_chosen_however_long_it_is(name: str, relaxation: Relaxation) -> None:
    """What is not decided within cells, as widths never are, does not count against paths of many cells."""
    space = small_space(name, cells=3, layers=4, scale=4)
    supernet = supernet_of(space, relaxation)
    supernet.progress = 1.0
    longest = len(space.graph.paths) - 1
    with torch.no_grad():
        supernet.alphas[0].mul_(0.0)
        chosen = list(space.graph.members[longest]) if space.graph.is_trellis else longest
        supernet.alphas[0][chosen] += 1.0
    choice = TrilevelChoices(space, scores_of(supernet)).best([])
    assert choice is not None and choice[0] == int(supernet.relaxed().paths.argmax())
    assert space.graph.is_trellis or choice[0] == longest


def test_of_whole_images_only_nodes_that_are_still_read_are_kept() -> None:
    space = small_space("trilevel-b", cells=3, layers=2)
    supernet = supernet_of(space).eval()
    alive: list[int] = []
    made: list[weakref.ref[torch.Tensor]] = []

    def note(module: nn.Module, x: Any, y: torch.Tensor) -> None:
        made.append(weakref.ref(y))
        alive.append(sum(one() is not None for one in made))

    for part in supernet.modules():
        if isinstance(part, SuperCell):
            part.register_forward_hook(note)
    with torch.inference_mode():
        supernet(torch.rand(1, 3, 6, 6))
    assert len(made) == sum(m.kind == CELL for m in space.graph.modules)
    assert max(alive) < len(made) and sum(one() is not None for one in made) == 0
