"""Random edits of weights between calls: each call has the values of now."""

import copy

import op_reference as reference
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from op_cases import random_int
from weight_state import ops, states


class Mutations(RuleBasedStateMachine):
    """Random tracked edits between calls; each call must equal the reference on the bytes of now."""

    weights = Bundle("weights")

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.x = torch.randn(2, 24)
        self.scale = torch.rand(6) + 0.01
        self.bias = torch.randn(6)
        self.alive = []
        self.all = []

    def keep(self, weight):
        self.alive = [*self.alive[-7:], weight]
        self.all.append(weight)
        return weight

    @rule(target=weights)
    def fresh(self):
        return self.keep(random_int(torch.int8, 6, 24))

    @rule(target=weights, w=weights)
    def detach(self, w):
        return self.keep(w.detach())

    @rule(target=weights, w=weights)
    def data(self, w):
        return self.keep(w.data)

    @rule(target=weights, w=weights)
    def deepcopy(self, w):
        return self.keep(copy.deepcopy(w))

    @rule(target=weights, w=weights)
    def view(self, w):
        return self.keep(w.view(6, 24))

    @rule(target=weights, w=weights)
    def parameter(self, w):
        return self.keep(torch.nn.Parameter(w, requires_grad=False))

    @rule(target=weights)
    def slice_of_bigger(self):
        return self.keep(random_int(torch.int8, 9, 30)[2:8, 3:27])

    @rule(target=weights, w=weights)
    def share(self, w):
        w.share_memory_() if w.is_contiguous() else None
        return self.keep(w)

    @rule(w=weights, value=st.integers(-128, 127), row=st.integers(0, 5))
    def fill_row(self, w, value, row):
        w[row] = value
        self.forget_data_aliases(w)

    @rule(w=weights, other=weights)
    def copy(self, w, other):
        w.copy_(other.clone())
        self.forget_data_aliases(w)

    @rule(w=weights, other=weights)
    def set_(self, w, other):
        w.set_(other)

    @rule(w=weights)
    def set_data(self, w):
        w.data = random_int(torch.int8, 6, 24)

    @rule(w=weights)
    def load_state_dict(self, w):
        module = torch.nn.Module()
        module.register_buffer("w", w)
        module.load_state_dict({"w": random_int(torch.int8, 6, 24)})
        self.forget_data_aliases(w)

    @rule(w=weights)
    def swap_halves(self, w):
        w.view(torch.uint8).bitwise_not_() if w.is_contiguous() else w.neg_()
        self.forget_data_aliases(w)

    @rule()
    def free_and_reuse(self):
        weight = random_int(torch.int8, 6, 24)
        self.run(weight)
        address = weight.data_ptr()
        del weight
        for _ in range(8):
            weight = random_int(torch.int8, 6, 24)
            self.run(weight)
            if weight.data_ptr() == address:
                break

    @rule(index=st.integers(0, 5))
    def edit_scale(self, index):
        self.scale[index] = self.scale[index] * 2 if self.scale[index] < 1 else 0.01

    @rule()
    def new_bias(self):
        self.bias = torch.randn(6)

    @rule(w=weights)
    def call(self, w):
        self.run(w)

    @invariant()
    def all_current(self):
        for w in self.alive:
            self.run(w)

    def forget_data_aliases(self, written):
        """A write through one counter is invisible to aliases with another: documented, so
        these are told by hand."""
        for w in self.all:
            if w is not written and w.untyped_storage()._cdata == written.untyped_storage()._cdata:
                ops._repack(w)

    def run(self, w):
        call = (self.x, w, self.scale, None, self.bias)
        assert torch.equal(ops.linear_dynamic(*call), reference.linear_dynamic(*call))
        assert len(states(w)) <= 4


Mutations.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestMutations = Mutations.TestCase
