"""The page list and the page configuration. Start: streamlit run dashboard/app.py."""

import sys
from pathlib import Path

import streamlit as st

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # Streamlit puts this script's folder there, not the project's
    sys.path.append(str(ROOT))

from dashboard import services  # noqa: E402
from dashboard.components.common.chooser import chooser  # noqa: E402
from dashboard.components.common.guard import guarded  # noqa: E402

st.set_page_config("Steel Lens", page_icon=services.files.asset("favicon.png"), layout="wide")
st.logo(services.files.asset("logo.svg"), size="large")
# An upright strip as wide as the page would be ten screens tall.
st.html('<style>[data-testid="stImage"] img{max-height:45rem;object-fit:contain;object-position:left top}</style>')
services.models.warm_up()

page = st.navigation(
    [
        st.Page("app_pages/overview.py", title="Overview", icon=":material/dashboard:", default=True),
        st.Page("app_pages/inspect.py", title="Inspect", icon=":material/frame_inspect:"),
        st.Page("app_pages/explain.py", title="Explain", icon=":material/layers:"),
        st.Page("app_pages/explore.py", title="Explore", icon=":material/photo_library:"),
        st.Page("app_pages/evaluate.py", title="Evaluate", icon=":material/monitoring:"),
        st.Page("app_pages/compare.py", title="Compare", icon=":material/balance:"),
        st.Page("app_pages/audit.py", title="Audit", icon=":material/policy:"),
        st.Page("app_pages/methods.py", title="Methods", icon=":material/leaderboard:"),
        st.Page("app_pages/train.py", title="Train", icon=":material/model_training:"),
    ],
    position="top",
)
with guarded():
    chooser()
    page.run()
