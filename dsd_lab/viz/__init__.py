"""Figures (matplotlib, plotly) and controls (ipywidgets)."""
