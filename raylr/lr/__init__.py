"""The learning rate as data: durations, shapes, warmup, scaling rules and policies. Pure Python, no torch, no ray."""

from raylr.lr.durations import Clock, duration_text, examples
from raylr.lr.lint import Finding, lint
from raylr.lr.parse import parse_shape, shape_text
from raylr.lr.policy import Factors, Momentum, Override, Policy, Schedule, Warmup
from raylr.lr.ramp import Ramp, parse_ramp, ramp_of_policy
from raylr.lr.scaling import KNOWN_RANGE, SCALING_RULES, gain, rule, scaled_betas_eps
from raylr.lr.shapes import SHAPES, Shape

__all__ = [
    "KNOWN_RANGE",
    "SCALING_RULES",
    "SHAPES",
    "Clock",
    "Factors",
    "Finding",
    "Momentum",
    "Override",
    "Policy",
    "Ramp",
    "Schedule",
    "Shape",
    "Warmup",
    "duration_text",
    "examples",
    "gain",
    "lint",
    "parse_ramp",
    "parse_shape",
    "ramp_of_policy",
    "rule",
    "scaled_betas_eps",
    "shape_text",
]
