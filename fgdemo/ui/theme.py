"""Colours, type and layout of the page. System fonts only: the page asks no other server for anything."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

STYLE = Path(__file__).parent / "static" / "style.css"

_SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Noto Sans", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def theme() -> gr.themes.Base:
    """Paper and ink with one green; light and dark."""
    base = gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        secondary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.stone,
        text_size=gr.themes.sizes.text_md,
        spacing_size=gr.themes.sizes.spacing_md,
        radius_size=gr.themes.sizes.radius_lg,
        font=_SANS,
        font_mono=_MONO,
    )
    return base.set(
        body_background_fill="#f7f6f3",
        body_background_fill_dark="#141312",
        body_text_color="*neutral_800",
        body_text_color_dark="*neutral_200",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#1d1c1a",
        background_fill_secondary="#f1efeb",
        background_fill_secondary_dark="#262523",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1d1c1a",
        block_border_color="#e5e2dc",
        block_border_color_dark="#33312e",
        border_color_primary="#e5e2dc",
        border_color_primary_dark="#33312e",
        block_border_width="1px",
        block_shadow="none",
        block_shadow_dark="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_text_color="*body_text_color_subdued",
        block_label_text_color_dark="*body_text_color_subdued",
        block_title_text_color="*body_text_color_subdued",
        block_title_text_color_dark="*body_text_color_subdued",
        block_title_text_weight="500",
        input_border_width="1px",
        input_background_fill="#ffffff",
        input_background_fill_dark="#262523",
        input_border_color="#d9d5cd",
        input_border_color_dark="#3d3a36",
        color_accent_soft="*primary_50",
        color_accent_soft_dark="#12302c",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_border_color="*primary_700",
        button_primary_border_color_dark="*primary_600",
        button_primary_text_color="white",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_hover="#f1efeb",
        button_secondary_background_fill_dark="#262523",
        button_secondary_background_fill_hover_dark="#33312e",
        button_secondary_border_color="#d9d5cd",
        button_secondary_border_color_dark="#3d3a36",
        slider_color="*primary_700",
        slider_color_dark="*primary_500",
    )
