"""Marks in a float model: here values become int8, here they become float again."""

from torch_ao_ext.nn._stubs import DeQuantStub, QuantStub, QuantWrapper

__all__ = ["DeQuantStub", "QuantStub", "QuantWrapper"]
