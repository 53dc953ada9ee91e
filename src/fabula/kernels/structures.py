"""The C structures of cpp/abi.h, field by field."""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_float, c_int32, c_int64, c_uint32, c_void_p

SEGMENTS = 4
OUTPUTS = 64


class CMatrix(ctypes.Structure):
    _fields_ = [
        ("data", c_void_p),
        ("panel_bytes", c_int64),
        ("layout", c_int32),
        ("rows", c_int32),
        ("columns", c_int32),
        ("multiplier", c_float),
    ]


class CValue(ctypes.Structure):
    _fields_ = [
        ("offset", c_int64),
        ("stride", c_int64),
        ("column", c_int64),
        ("width", c_int32),
        ("scored", c_int32),
        ("replicated", c_int32),
        ("output", c_int32),
    ]


class CSegment(ctypes.Structure):
    _fields_ = [
        ("matrix", ctypes.POINTER(CMatrix)),
        ("bias", c_void_p),
        ("out", c_int32),
        ("residual", c_int32),
        ("residual_gathered", c_int32),
        ("reserved", c_int32),
    ]


class CInstruction(ctypes.Structure):
    _fields_ = [
        ("operation", c_int32),
        ("scored", c_int32),
        ("a", c_int32),
        ("b", c_int32),
        ("c", c_int32),
        ("out", c_int32),
        ("gathered", c_int32),
        ("segments", c_int32),
        ("integers", c_int32 * 8),
        ("numbers", c_float * 4),
        ("pointers", c_void_p * 2),
        ("segment", CSegment * SEGMENTS),
    ]


class CPositionBias(ctypes.Structure):
    _fields_ = [("values", c_void_p), ("far", c_int32), ("reserved", c_int32)]


class CRope(ctypes.Structure):
    _fields_ = [("inverse_frequencies", ctypes.POINTER(c_double)), ("half", c_int32), ("factor", c_float)]


class CStep(ctypes.Structure):
    _fields_ = [
        ("positions", c_int32),
        ("rows", c_int32),
        ("table_width", c_int32),
        ("scored_count", c_int32),
        ("tokens", c_void_p),
        ("starts", c_void_p),
        ("first", c_void_p),
        ("tables", c_void_p),
        ("scored", c_void_p),
        ("vectors", c_void_p),
        ("cache", c_void_p),
        ("block_bytes", c_int64),
        ("blocks", c_int64),
        ("memories", c_void_p),
        ("memory_lengths", c_void_p),
        ("memory_block_bytes", c_int64),
        ("columns", c_void_p),
        ("outputs", c_void_p * OUTPUTS),
    ]


class CSampleRow(ctypes.Structure):
    _fields_ = [
        ("temperature", c_float),
        ("tail", c_float),
        ("min_p", c_float),
        ("repetition_penalty", c_float),
        ("top_k", c_int32),
        ("token_count", c_int32),
        ("tokens", c_void_p),
        ("seed_low", c_uint32),
        ("seed_high", c_uint32),
        ("stream", c_uint32),
        ("position", c_uint32),
        ("purpose", c_uint32),
        ("reserved", c_int32),
    ]


class CBurst(ctypes.Structure):
    _fields_ = [
        ("steps", c_int32),
        ("end_count", c_int32),
        ("seconds", c_double),
        ("ends", c_void_p),
        ("tokens", c_void_p),
        ("done", c_int32),
    ]


# Those whose sizes the library tells.
SHARED = (CMatrix, CValue, CSegment, CInstruction, CStep, CSampleRow, CBurst, CPositionBias)
