"""Small complete pipelines, trained on the project's own worlds: recipes, training, exams and model
cards.
"""
