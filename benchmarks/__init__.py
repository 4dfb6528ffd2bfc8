"""Commands that measure the figures in docs/, run as `python -m benchmarks.<name>`.

This is what each command writes and measures. Results go into results/, unless `--results` names another folder:

- bulk: bulk.md, the speed and memory of `python -m app.bulk`.
- classify: classify.md, the speed of `python -m app.classify`.
- own_classes: own-classes.md, accuracy from a few images of each class.
- recipes: recipes.md, variants of the training recipe.
- rolling_restart: rolling_restart.md, restarts behind nginx.
- runtime: runtime.md, the model without a service.
- screenshot: docs/page.png, a picture of the web page.
- serving: serving.md and serving.json, the service compared with its peers, and alone.
- training: training.md, the pipeline compared with the article's code.

The other modules are parts of these commands; `serving` starts the modules in peers/.
"""
