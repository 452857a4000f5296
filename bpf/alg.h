/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What FTP and TFTP say about data connections to come. Pure: bytes in, address and port out.
 *
 *     client   PORT h1,h2,h3,h4,p1,p2              RFC 959 4.1.2
 *              EPRT |1|h1.h2.h3.h4|port|           RFC 2428 2
 *              EPRT |2|IPv6 address|port|
 *     server   227 text (h1,h2,h3,h4,p1,p2) text   RFC 959 4.2
 *              229 text (|||port|)                 RFC 2428 3
 *     client   read or write request               RFC 1350 4
 *
 * A line counts if it is whole and is written like this; the delimiter of RFC 2428 is the one everybody uses. A reader
 * of text that guesses is what such code has been attacked by (slipstreaming, CVE-2022-2663).
 *
 * Where the reader is stands in memory, and is read from there anew each time: the verifier follows the loops and not
 * each way through the line.
 */
#ifndef VSFWD_ALG_H
#define VSFWD_ALG_H

#include "packet.h"

#define LINE_BYTES 128 /* what is read of a line, and one more */
#define LOWEST_PORT 1024
#define NO_GAP 9
#define TFTP_READ 1
#define TFTP_WRITE 2

/* The byte at which the reader is; 0 behind the end, as nothing that is looked for is 0. */
static __always_inline u8 peek(const struct line *line, const u8 *bytes)
{
	u32 at = *(volatile const u32 *)&line->at;

	return at < *(volatile const u32 *)&line->length ? bytes[at & (LINE_BYTES - 1)] : 0;
}

static __always_inline void advance_line(struct line *line)
{
	*(volatile u32 *)&line->at += 1;
}

static __always_inline bool eat(struct line *line, const u8 *bytes, u8 wanted)
{
	if (peek(line, bytes) != wanted)
		return false;
	advance_line(line);
	return true;
}

/* Commands are the same in capitals and not (RFC 959 5.3). `word` is in capitals. */
static __always_inline bool eat_word(struct line *line, const u8 *bytes, const char *word, u32 length)
{
#pragma unroll
	for (u32 i = 0; i < length; i++) {
		u8 byte = peek(line, bytes);

		if (byte >= 'a' && byte <= 'z')
			byte -= 'a' - 'A';
		if (byte != word[i])
			return false;
		advance_line(line);
	}
	return true;
}

static __always_inline bool eat_number(struct line *line, const u8 *bytes, u32 limit)
{
	volatile u32 *number = &line->number;
	u32 digits = 0;

	*number = 0;
	for (; digits < 5; digits++) {
		u8 digit = peek(line, bytes) - '0';

		if (digit > 9)
			break;
		*number = *number * 10 + digit;
		advance_line(line);
	}
	return digits && *number <= limit;
}

/* Numbers of one byte each, with `between` between them. */
static __always_inline bool eat_parts(struct line *line, const u8 *bytes, u32 parts, u8 between)
{
	for (u32 i = 0; i < parts; i++) {
		if (i && !eat(line, bytes, between))
			return false;
		if (!eat_number(line, bytes, 255))
			return false;
		line->part[i] = line->number;
	}
	line->address = mapped(swap32((u32)line->part[0] << 24 | line->part[1] << 16 | line->part[2] << 8 | line->part[3]));
	return true;
}

static __always_inline bool eat_group(struct line *line, const u8 *bytes)
{
	volatile u32 *number = &line->number;
	u32 digits = 0;

	*number = 0;
	for (; digits < 4; digits++) {
		u8 byte = peek(line, bytes), digit = byte - '0', letter = (byte | 0x20) - 'a';

		if (digit > 9 && letter > 5)
			break;
		*number = *number << 4 | (digit <= 9 ? digit : letter + 10);
		advance_line(line);
	}
	return digits;
}

/* RFC 4291 2.2, without the form that ends like IPv4. */
static __always_inline bool eat_ipv6(struct line *line, const u8 *bytes)
{
	volatile u32 *groups = &line->groups, *gap = &line->gap;
	u16 *word = (u16 *)&line->address;

	*groups = 0;
	*gap = NO_GAP;
	if (eat(line, bytes, ':') && peek(line, bytes) != ':')
		return false;
	for (u32 i = 0; i < 9; i++) {
		if (eat(line, bytes, ':')) {
			if (*gap != NO_GAP)
				return false;
			*gap = *groups;
			if (!eat_group(line, bytes))
				break;
		} else if (!eat_group(line, bytes)) {
			return false;
		}
		if (*groups == 8)
			return false;
		line->group[*groups & 7] = line->number;
		*groups += 1;
		if (!eat(line, bytes, ':'))
			break;
	}
	if ((*gap == NO_GAP) != (*groups == 8))
		return false;
	for (u32 i = 0; i < 8; i++) {
		u32 missing = 8 - *groups, from = i < *gap ? i : i - missing;

		word[i] = i >= *gap && i < *gap + missing ? 0 : swap16(line->group[from & 7]);
	}
	return true;
}

static __always_inline bool eat_end(struct line *line, const u8 *bytes)
{
	return eat(line, bytes, '\r') && eat(line, bytes, '\n');
}

/* h1,h2,h3,h4,p1,p2 */
static __always_inline bool eat_host_port(struct line *line, const u8 *bytes)
{
	if (!eat_parts(line, bytes, 6, ','))
		return false;
	line->port = line->part[4] << 8 | line->part[5];
	return true;
}

static __always_inline bool eat_port(struct line *line, const u8 *bytes)
{
	if (!eat_number(line, bytes, 65535) || !eat(line, bytes, '|'))
		return false;
	line->port = line->number;
	return true;
}

static __always_inline bool read_eprt(struct line *line, const u8 *bytes)
{
	if (!eat(line, bytes, '|') || !eat_number(line, bytes, 2) || !eat(line, bytes, '|'))
		return false;
	if (line->number == 1 ? !eat_parts(line, bytes, 4, '.') : !eat_ipv6(line, bytes))
		return false;
	return eat(line, bytes, '|') && eat_port(line, bytes) && eat_end(line, bytes);
}

static __always_inline bool read_command(struct line *line, const u8 *bytes)
{
	if (eat_word(line, bytes, "PORT ", 5))
		return eat_host_port(line, bytes) && eat_end(line, bytes);
	line->at = 0;
	return eat_word(line, bytes, "EPRT ", 5) && read_eprt(line, bytes);
}

/* Up to behind the first `wanted` of this line. */
static __always_inline bool skip_to(struct line *line, const u8 *bytes, u8 wanted)
{
	for (u32 i = 0; i < LINE_BYTES; i++) {
		u8 byte = peek(line, bytes);

		if (!byte)
			return false;
		advance_line(line);
		if (byte == wanted)
			return true;
		if (byte == '\r' || byte == '\n')
			return false;
	}
	return false;
}

static __always_inline bool read_reply(struct line *line, const u8 *bytes, const struct address *sender)
{
	if (eat_word(line, bytes, "227 ", 4)) {
		if (!skip_to(line, bytes, '(') || !eat_host_port(line, bytes))
			return false;
	} else {
		line->at = 0;
		line->address = *sender;
		if (!eat_word(line, bytes, "229 ", 4) || !skip_to(line, bytes, '(') || !eat_word(line, bytes, "|||", 3) ||
		    !eat_port(line, bytes))
			return false;
	}
	return eat(line, bytes, ')') && skip_to(line, bytes, '\r') && eat(line, bytes, '\n');
}

/* Whether the line announces a data connection to `sender` itself, as it may; the port is then in line->port. */
static __always_inline bool announces(struct line *line, const u8 *bytes, u8 speech, const struct address *sender)
{
	line->at = 0;
	if (!(speech == SPEECH_FTP_CLIENT ? read_command(line, bytes) : read_reply(line, bytes, sender)))
		return false;
	return same_address(&line->address, sender) && line->port >= LOWEST_PORT;
}

/* What an ALG of this rule listens for in a flow; `flow->initiator` is known. A flow from before that it did not listen
 * to is somewhere in a line. */
static __always_inline void attend(struct flow *flow, const struct flow_key *key, const struct rule *rule)
{
	bool in = flow->initiator == DIRECTION_IN;
	struct tcp_side *client = &flow->side[flow->initiator & 1], *server = &flow->side[!(flow->initiator & 1)];
	u16 port = in ? key->local_port : key->remote_port;
	u8 begun = client->speech ? 0 : MID_LINE;

	if (rule->ftp && rule->ftp == port && key->protocol == PROTOCOL_TCP) {
		client->speech = SPEECH_FTP_CLIENT | (client->speech & MID_LINE) | begun;
		server->speech = SPEECH_FTP_SERVER | (server->speech & MID_LINE) | begun;
	} else if (rule->tftp && rule->tftp == port && key->protocol == PROTOCOL_UDP) {
		client->speech = SPEECH_TFTP_CLIENT;
	} else {
		client->speech = server->speech = SPEECH_NONE;
	}
}

/* A flow begins: with a SYN that has no data both sides are at the start of a line. */
static __always_inline void attend_from_start(struct flow *flow, const struct packet *packet)
{
	if (flow->state != STATE_SYN_SENT || packet->end != packet->seq + 1)
		return;
	flow->side[0].speech &= ~MID_LINE;
	flow->side[1].speech &= ~MID_LINE;
}

#endif
