"""The sentences of isobath-tiny's chat format, under the names of DeepSeek-V4's own encoder file.

isobath reads the literals below and never runs this file. Both formats' efforts are here, so that
either can be tried on this model (`--chat-format`); the one it says is its own is v4-0731.
"""

ISOBATH_CHAT_FORMAT = "v4-0731"

REASONING_EFFORT_MAX = "Think for as long as it takes, and doubt every step.\n\n"

REASONING_EFFORT_PROMPTS = {
    "low": "",
    "high": "Think carefully, and check each step before the next.\n\n",
    "max": "Think for as long as it takes, doubt every step, and look for a second proof.\n\n",
}

TOOLS_TEMPLATE = """## Tools

To call a tool, end the answer with a block like this:

<{dsml_token}tool_calls>
<{dsml_token}invoke name="TOOL">
<{dsml_token}parameter name="NAME" string="true|false">VALUE</{dsml_token}parameter>
</{dsml_token}invoke>
</{dsml_token}tool_calls>

A string is written as it is, with string="true"; any other value as JSON, with string="false".
Reasoning between {thinking_start_token} and {thinking_end_token} comes first.

These tools exist, one JSON object a line:

{tool_schemas}

Call no others, and keep to their schemas.
"""

response_format_template = "## Response Format\n\nAnswer in JSON that fits this schema:\n{schema}"
