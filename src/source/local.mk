# SPDX-License-Identifier: MIT
%C%_libsource_la_SOURCES = \
	%D%/client.c \
	%D%/file.c \
	%D%/file_lines.c \
	%D%/file_lines.h \
	%D%/file_position.c \
	%D%/file_position.h \
	%D%/generate.c \
	%D%/http.c \
	%D%/http_answer.c \
	%D%/http_answer.h \
	%D%/http_exchange.c \
	%D%/http_exchange.h \
	%D%/idefix.c \
	%D%/idefix_events.c \
	%D%/idefix_events.h \
	%D%/page.c \
	%D%/source.c \
	%D%/source.h
