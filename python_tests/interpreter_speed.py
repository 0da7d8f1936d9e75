"""Triton's interpreter without work that it repeats; what it computes stays the same.

Four fifths of the time that an interpreted kernel takes would go into this:

- Before every call of one jit function by another, the interpreter replaces the members of
  `triton.language`, which the launch has replaced already (`PatchOnce`).
- It looks numpy's type up in a table that is made anew each time (`TypesOnce`).
- It makes a type of its own, with a shape that it checks, for every tensor (`share_types`).
- It works out for every two operands what both have to become (`Operands`).
- It computes sums and products of integers again in 64 bits for an assertion that is off.
- It sorts by exclusive-or, one element at a time (`reduce_xor`).
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np


class PatchOnce:
    """Stands in for `interpreter._patch_lang`: skips the modules that the running launch patched.

    A launch restores what it patched, the calls within it do not. So the first to ask is the
    launch, and what follows until it restores are its calls.
    """

    def __init__(self, patch: Callable[[Any], Any], languages: tuple[Any, ...]) -> None:
        self.patch = patch
        self.languages = languages
        self.patched: set[str] = set()
        self.visible = functools.cache(self._visible)

    def _visible(self, function: Any) -> frozenset[str]:
        """Names of the language modules among the globals of a function."""
        seen = list(function.__globals__.values())
        return frozenset(m.__name__ for m in self.languages if any(m is value for value in seen))

    def __call__(self, function: Any) -> Any:
        visible = self.visible(function)
        if self.patched and visible <= self.patched:
            return None
        scope = self.patch(function)
        if not self.patched:
            scope.restore = functools.partial(self._restore, scope.restore)
        self.patched |= visible
        return scope

    def _restore(self, restore: Callable[[], None]) -> None:
        self.patched.clear()
        restore()


class TypesOnce:
    """Stands in for `interpreter._get_np_dtype`: each scalar type is looked up once."""

    def __init__(self, look_up: Callable[[Any], Any]) -> None:
        self.look_up = look_up
        self.scalar = functools.cache(look_up)

    def __call__(self, kind: Any) -> Any:
        element = kind.scalar
        return self.look_up(kind) if element.is_ptr() else self.scalar(element)


def share_types(core: Any) -> None:
    """Make equal block and pointer types one object that remembers what it tells of a tensor."""
    constexpr, tensor, make = core.constexpr, core.tensor, core.tensor.__init__

    def block(element_ty: Any, shape: Any) -> tuple[Any, ...]:
        return id(element_ty), *(s.value if isinstance(s, constexpr) else s for s in shape)

    def pointer(element_ty: Any, address_space: int = 1, const: bool = False) -> tuple[Any, ...]:
        return id(element_ty), address_space, const

    def of_type(self: Any, handle: Any, type: Any) -> None:
        parts = type.__dict__.get("parts")
        if parts is None:
            make(self, handle, type)
            type.parts = {name: part for name, part in vars(self).items() if name != "handle"}
        else:
            vars(self).update(parts)
            self.handle = handle

    share(core.pointer_type, pointer)
    share(core.block_type, block)
    tensor.__init__ = of_type


def share(kind: Any, key_of: Callable[..., tuple[Any, ...]]) -> None:
    """Make one object of a class for each key. It lives on, and with it what its key is made of."""
    make = kind.__init__
    made: dict[Any, Any] = {}

    def shared(cls: Any, *args: Any, **named: Any) -> Any:
        key = key_of(*args, **named)
        if key not in made:
            new = object.__new__(cls)
            make(new, *args, **named)
            made[key] = new
        return made[key]

    kind.__new__ = shared
    kind.__init__ = lambda self, *args, **named: None


class Operands:
    """Stands in for the steps of `TritonSemantic` that give two operands one type and one shape.

    Which casts and broadcasts that takes depends on the two types, which are shared; a number
    becomes the same constant each time.
    """

    def __init__(self, semantic: Any, tensor: Any) -> None:
        self.tensor = tensor
        self.unify = semantic.binary_op_type_checking_impl
        self.broadcast = semantic.broadcast_impl_value
        self.constant = semantic.scalar_constant
        self.numbers: dict[Any, Any] = {}
        self.constants: dict[Any, Any] = {}
        self.plans: dict[Any, tuple[Any, Any]] = {}

    def patch(self, semantic: Any) -> None:
        semantic.binary_op_type_checking_impl = lambda *args, **named: self.unified(*args, **named)
        semantic.broadcast_impl_value = lambda *args: self.broadcasted(*args)
        semantic.scalar_constant = lambda semantic, value, dtype: self.constant_of(
            semantic, value, dtype
        )

    def unified(self, semantic: Any, lhs: Any, rhs: Any, *flags: Any, **named: Any) -> Any:
        if not isinstance(lhs, self.tensor):
            return self.unify(semantic, lhs, rhs, *flags, **named)
        if not isinstance(rhs, self.tensor):
            return self.with_number(semantic, lhs, rhs, *flags, **named)
        # Two pointers may be an error, and a quotient of 16 bits is computed in 32.
        dtype = lhs.dtype
        if dtype is rhs.dtype and not dtype.is_ptr() and dtype.primitive_bitwidth > 16:
            return self.broadcasted(semantic, lhs, rhs)
        return self.unify(semantic, lhs, rhs, *flags, **named)

    def with_number(self, semantic: Any, lhs: Any, number: Any, *flags: Any, **named: Any) -> Any:
        key = id(lhs.type), type(number), number, flags, *named.items()
        constant = self.numbers.get(key)
        if constant is not None:
            return lhs, constant
        left, right = self.unify(semantic, lhs, number, *flags, **named)
        if left is lhs:
            keep(self.numbers, key, right)
        return left, right

    def constant_of(self, semantic: Any, value: Any, dtype: Any) -> Any:
        key = type(value), value, id(dtype)
        constant = self.constants.get(key)
        if constant is None:
            constant = self.constant(semantic, value, dtype)
            keep(self.constants, key, constant)
        return constant

    def broadcasted(self, semantic: Any, lhs: Any, rhs: Any) -> Any:
        if lhs.type is rhs.type:
            return lhs, rhs
        key = id(lhs.type), id(rhs.type)
        plan = self.plans.get(key)
        if plan is not None:
            return self.stretched(semantic, lhs, plan[0]), self.stretched(semantic, rhs, plan[1])
        left, right = self.broadcast(semantic, lhs, rhs)
        if len(lhs.shape) in (0, len(right.shape)) and len(rhs.shape) in (0, len(left.shape)):
            self.plans[key] = (
                None if left is lhs else left.type,
                None if right is rhs else right.type,
            )
        return left, right

    def stretched(self, semantic: Any, operand: Any, goal: Any) -> Any:
        if goal is None:
            return operand
        if operand.type.is_block():
            handle = semantic.builder.create_broadcast(operand.handle, tuple(goal.shape))
        else:
            handle = semantic.builder.create_splat(goal, operand.handle)
        return self.tensor(handle, goal)


def reduce_xor(interpreter: Any) -> None:
    """Let numpy reduce by exclusive-or, as the interpreter lets it add."""
    reduce_slowly = interpreter.ReduceOps.generic_reduce

    def reduce(self: Any, given: tuple[Any, ...]) -> Any:
        if self.combine_fn != interpreter.tl.standard._xor_combine:
            return reduce_slowly(self, given)
        [block] = given
        reduced = np.bitwise_xor.reduce(block.handle.data, self.axis, keepdims=self.keep_dims)
        return self.to_tensor(reduced, block.dtype)

    interpreter.ReduceOps.generic_reduce = reduce


def keep(kept: dict[Any, Any], key: Any, constant: Any, most: int = 1000) -> None:
    """Make each constant once; its array is shared and must not be written to."""
    if len(kept) == most:
        kept.clear()
    constant.handle.data.setflags(write=False)
    kept[key] = constant


def quicken() -> None:
    """Speed the interpreter up if it has been imported, once."""
    interpreter: Any = sys.modules.get("triton.runtime.interpreter")
    if interpreter is None or isinstance(interpreter._patch_lang, PatchOnce):
        return
    core = interpreter.tl.core
    interpreter._patch_lang = PatchOnce(interpreter._patch_lang, (interpreter.tl, core))
    interpreter._get_np_dtype = TypesOnce(interpreter._get_np_dtype)
    share_types(core)
    Operands(interpreter.TritonSemantic, core.tensor).patch(interpreter.TritonSemantic)
    reduce_xor(interpreter)
    builder = interpreter.interpreter_builder
    assert not builder.options.debug, (
        "the interpreter asserts that sums of integers do not overflow"
    )
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
