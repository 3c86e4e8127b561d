"""Measure models on labelled photographs: metrics, intervals, comparisons; numpy only."""
