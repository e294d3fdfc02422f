"""Figures (matplotlib, plotly) and controls (ipywidgets). Nothing else in the library imports them."""
