"""Ten steps of an optimizer of torch's kind, as fixtures of tests/optim have them."""

import json

import torch

LEARNING_RATES = [0.1 / (1 + step) for step in range(10)]


def write(path: str, shapes: dict, cases: list, create, away: float = 0.0) -> None:
    """`create(case, groups)` makes the optimizer; matrices decay and vectors do not, as transformers groups them.

    A case is a dictionary that goes into the file; its weight decay is in itself, or in its `config`. Weights begin
    `away` from 0, so that none comes near it, where no relative error is small.
    """
    torch.manual_seed(0)
    draw = lambda: {name: torch.randn(shape) for name, shape in shapes.items()}
    lists = lambda tensors: {name: tensor.flatten().tolist() for name, tensor in tensors.items()}
    start = {name: value + away * value.sign() for name, value in draw().items()}
    gradients = [draw() for _ in LEARNING_RATES]

    def run(case: dict) -> list:
        parameters = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
        decay = case.get("config", case).get("weight_decay", 0.0)
        is_vector = lambda name: name.startswith("vector")
        groups = [
            {"params": [each for name, each in parameters.items() if not is_vector(name)], "weight_decay": decay},
            {"params": [each for name, each in parameters.items() if is_vector(name)], "weight_decay": 0.0},
        ]
        optimizer = create(case, groups)
        after = []
        for rate, gradient in zip(LEARNING_RATES, gradients):
            for group in optimizer.param_groups:
                group["lr"] = rate
            for name, parameter in parameters.items():
                parameter.grad = gradient[name].clone()
            optimizer.step()
            after.append(lists({name: each.detach() for name, each in parameters.items()}))
        return after

    fixture = {
        "torch": torch.__version__,
        "learning_rates": LEARNING_RATES,
        "start": lists(start),
        "gradients": [lists(each) for each in gradients],
        "cases": [{**case, "after": run(case)} for case in cases],
    }
    with open(path, "w") as file:
        json.dump(fixture, file)
