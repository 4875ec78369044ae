"""From a conversation to the text of its prompt, turn by turn.

    <bos>{effort}{system}[\\n\\n{tools}][\\n\\n{schema}]<｜User｜>{user}<｜Assistant｜><think>
    {reasoning}</think>{content}[\\n\\n<｜DSML｜tool_calls>...]<eos>

Results of tools become part of a user's turn, in the order of the calls. It departs from the
reference encoder where that leaves an assistant's turn without its opening: after a system message
that stands before it or ends the conversation, and after another assistant's turn. Models answer
such prompts with nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from isobath.chat.conversation import Conversation, Message
from isobath.chat.dsml import to_json, write_block
from isobath.chat.replay import Replay
from isobath.chat.texts import OURS, Texts
from isobath.errors import RequestError
from isobath.model.text import BOS, EOS

THINK, END_THINK = OURS["thinking_start_token"], OURS["thinking_end_token"]
USER, ASSISTANT = OURS["USER_SP_TOKEN"], OURS["ASSISTANT_SP_TOKEN"]
REMINDER = OURS["LATEST_REMINDER_SP_TOKEN"]
TASKS = {
    name: f"<｜{name}｜>"
    for name in ("action", "query", "authority", "domain", "title", "read_url")
}


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a prompt. foreign: a user or a tool wrote it, not the format."""

    text: str
    foreign: bool = False


@dataclass(slots=True)
class _Turn:
    """A message; or all that a user and tools say between two turns, as blocks (call id, text)."""

    message: Message
    blocks: list[tuple[str | None, str]] = field(default_factory=list)


def thinks(conversation: Conversation) -> bool:
    """Whether the answer begins with reasoning: as asked, else unless the effort is "none"."""
    if conversation.thinking is not None:
        return conversation.thinking
    return conversation.effort != "none"


def render(conversation: Conversation, texts: Texts, replay: Replay | None = None) -> list[Segment]:
    """The prompt in pieces. Raises RequestError where the format has no place for something."""
    if not conversation.messages:
        raise RequestError("messages: empty", do="send at least one message", param="messages")
    thinking = thinks(conversation)
    turns = _turns(_with_system(conversation))
    drop = conversation.drop_thinking and not conversation.tools
    last_user = max((i for i, t in enumerate(turns) if t.message.role == "user"), default=-1)
    keeps = [thinking and (not drop or i >= last_user) for i in range(len(turns))]
    effort = None if conversation.effort == "none" else conversation.effort
    out = [Segment(BOS + (texts.effort_prefix(effort) if thinking else ""))]
    offered = False
    for i, turn in enumerate(turns):
        before = turns[i - 1].message if i else None
        role = turn.message.role
        if role == "assistant":
            if not (before and (before.task or before.role == "latest_reminder")):
                out.append(_opening(keeps[i - 1] if i else keeps[0]))
            left_open = conversation.continue_final_message and i + 1 == len(turns)
            reasons = thinking and not (before and before.task) and (not drop or i > last_user)
            out.append(Segment(_answer(turn.message, reasons, left_open, replay)))
        elif role == "user":
            out += [Segment(USER), Segment("\n\n".join(_blocks(turn)), foreign=True)]
            out += _task(turn.message, turns[i + 1 : i + 2], thinking)
        elif role == "latest_reminder":
            if before and before.role == "user" and not before.task:
                out.append(_opening(keeps[i - 1]))
            out += [Segment(REMINDER), Segment(turn.message.content, foreign=True)]
        else:
            out.append(Segment(turn.message.content))
            if not offered:
                out.append(Segment(_offers(conversation, texts)))
            offered = True
    out += _ending(conversation, turns, keeps[-1])
    return out


def _with_system(conversation: Conversation) -> Sequence[Message]:
    """The messages; with an empty system message in front where tools need one to stand in."""
    messages = conversation.messages
    stands = any(message.role == "system" for message in messages)
    if stands or not (conversation.tools or conversation.response_format):
        return messages
    return (Message("system"), *messages)


def _turns(messages: Sequence[Message]) -> list[_Turn]:
    """Messages with users' and tools' brought together, results in the order of their calls."""
    turns: list[_Turn] = []
    order: dict[str, int] = {}
    for message in messages:
        if message.role not in ("user", "tool"):
            turns.append(_Turn(message))
            if message.calls:
                order = {call.id: at for at, call in enumerate(message.calls)}
            continue
        block = (message.call_id if message.role == "tool" else None, message.content)
        last = turns[-1] if turns else None
        said = last.message if last else None
        if last and said and said.role == "user" and (message.role == "tool" or not said.task):
            last.blocks.append(block)
            last.message = replace(said, task=said.task or message.task)
        else:
            turns.append(_Turn(Message("user", task=message.task), [block]))
        _sort(turns[-1].blocks, order)
    return turns


def _sort(blocks: list[tuple[str | None, str]], order: dict[str, int]) -> None:
    """Put results into the order of the calls; users' own words stay where they are."""
    places = [at for at, (call_id, _) in enumerate(blocks) if call_id is not None]
    results = sorted((blocks[at] for at in places), key=lambda b: order.get(b[0] or "", 0))
    for at, result in zip(places, results, strict=True):
        blocks[at] = result


def _blocks(turn: _Turn) -> list[str]:
    return [
        text if call_id is None else f"<tool_result>{text}</tool_result>"
        for call_id, text in turn.blocks
    ]


def _opening(keeps: bool) -> Segment:
    """What opens an assistant's turn: reasoning, or the sign that there is none."""
    return Segment(ASSISTANT + (THINK if keeps else END_THINK))


def _answer(message: Message, reasons: bool, left_open: bool, replay: Replay | None) -> str:
    calls = write_block(message.calls, replay) if message.calls else ""
    text = message.content + calls
    if reasons and not (left_open and not text):
        text = message.reasoning + END_THINK + text
    elif reasons:
        text = message.reasoning  # to be gone on with
    return text if left_open else text + EOS


def _offers(conversation: Conversation, texts: Texts) -> str:
    """What follows the first system message: tools, then the shape of the answer."""
    text = ""
    if conversation.tools:
        text += "\n\n" + texts.tools([to_json(tool.function) for tool in conversation.tools])
    if conversation.response_format:
        text += "\n\n" + texts.response_format(to_json(conversation.response_format))
    return text


def _task(message: Message, following: list[_Turn], thinking: bool) -> list[Segment]:
    """A quick instruction's token, which takes the place of the opening."""
    task = message.task
    if task is None or (following and following[0].message.role in ("system", "user")):
        return []
    if task not in TASKS:
        known = ", ".join(TASKS)
        raise RequestError(
            f"messages: task {task!r} is unknown", do=f"use one of {known}", param="messages"
        )
    if task != "action":
        return [Segment(TASKS[task])]
    return [_opening(thinking), Segment(TASKS[task])]


def _ending(conversation: Conversation, turns: list[_Turn], keeps: bool) -> list[Segment]:
    """The opening of the answer to come."""
    last = turns[-1].message
    if conversation.continue_final_message:
        if last.role != "assistant":
            raise RequestError(
                "continue_final_message: there is nothing to continue",
                found=f"the last message is of role {last.role!r}",
                do="end with the assistant's message",
                param="continue_final_message",
            )
        return []
    if not conversation.add_generation_prompt or last.task or last.role == "latest_reminder":
        return []
    return [_opening(keeps)]
