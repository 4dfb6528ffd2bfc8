"""The README's figures and its picture: commands, run as `python -m benchmarks.<name>`, and their parts.

What each command writes, those of figures into results/ unless `--results` names another folder:

- classify: classify.md, the pace of `python -m app.classify`.
- recipes: recipes.md, changes of the training recipe.
- rolling_restart: rolling_restart.md, a restart behind nginx.
- runtime: runtime.md, the model without any service.
- screenshot: docs/page.png, the page.
- serving: serving.md and serving.json, the service beside its peers, and alone.
- training: training.md, the pipeline beside the article's own code.

The other modules are parts of these; those in peers/ are started by serving.
"""
