/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: the line that a stage's program answers. It is an answer as a whole, or none, with a message
 * that can be shown and a call left as it was.
 */
#include "tests/lib/fuzz.h"

#include "src/stage/exec_answer.h"

static void check_show(const char *line, size_t bytes)
{
    char shown[64];

    for (size_t size = 0; size <= sizeof shown; size += 7) {
        stage_exec_answer_quote(line, bytes, shown, size);
        PROMISE(size == 0 || strlen(shown) < size);
        if (size > 8)
            fuzz_check_message(shown);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const char *line = (const char *)data;
    char errbuf[SHM_TEXT_BYTES] = "";
    struct ep_call call = {.source = "source",
                           .stage = "stage",
                           .uid = "u1",
                           .event = "{}",
                           .event_bytes = 2,
                           .context = "{}",
                           .context_bytes = 2,
                           .attempt = 1};

    check_show(line, bytes);
    stage_call_open(&call);
    int code = stage_exec_answer_read(line, bytes, &call, errbuf, sizeof errbuf);
    PROMISE(code == 0 || code == EP_EPROTO);
    if (code != 0) {
        fuzz_check_message(errbuf);
        PROMISE(call.new_event == NULL && call.new_context == NULL && call.retry_after_ms == 0);
        stage_call_close(&call);
        return 0;
    }
    PROMISE(json_valid(line, bytes, NULL));
    PROMISE(call.retry_after_ms <= UNITS_DURATION_MAX_MS);
    const char *texts[] = {call.new_event, call.new_context};
    for (size_t i = 0; i < 2; i++)
        if (texts[i] != NULL) {
            struct json_span span = {texts[i], strlen(texts[i])};
            PROMISE(json_valid(span.at, span.bytes, NULL) && json_kind(span) == '{');
        }
    PROMISE(base_utf8_valid(call.reason, strlen(call.reason)));
    struct text document = {0};
    PROMISE(stage_call_write_json(&call, &document) == 0 && json_valid(document.text, document.bytes, NULL));
    base_text_free(&document);
    PROMISE(stage_call_print_changed_context(&call) == 0);
    stage_call_close(&call);
    return 0;
}
