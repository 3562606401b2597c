"""The residual page: what each layer would predict, and what the final prediction is the sum of."""

from app.controls import prompt_controls
from app.fields import PROMPT
from app.page import Page, Panel
from app.views import residual as views
from workbench.lens import logit_lens

LENS = Panel(
    name="lens",
    title="Logit lens",
    explains="What the stream would predict after each layer if the network ended there.",
    uses=("prompt",),
    compute=lambda model, asked, report: logit_lens(
        model, asked["prompt"], progress=report.counting("Reading layers")
    ),
    draw=views.lens,
    code=views.lens_code,
)
PAGE = Page(
    title="Residual",
    path="/residual",
    fields=(PROMPT,),
    panels=(LENS,),
    controls=lambda session, info, state: prompt_controls(info, state),
)
TITLE, PATH, layout, register = PAGE.title, PAGE.path, PAGE.layout, PAGE.register
