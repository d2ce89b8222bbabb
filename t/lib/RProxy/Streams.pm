# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Plays an HTTP/2 client in RProxy::Conversations: the streams of a conversation, one behind the
# other or all at once, and at the end one more that shows whether the connection still serves.
#
# What a conversation has for it:
#   streams   lists of steps, in the order in which they are sent:
#               [headers => [[name, value] ...], %options]   pad, priority, split (into how many
#                                                            frames), indexed, end
#               [data => bytes, %options]                    pad, end
#               [reset => code]
#               [frame => type, flags, payload]              any other frame of this stream
#               ['wait']                                     for a head, also an interim one
#               ['tunnel']                                   for a head; only a 2xx goes on
#             A stream that is not ended by its steps is reset when nothing moves any more.
#   together  true: all streams begin at once
#   one_write true: what can be sent at once leaves in one piece
#   settings  of the client
package RProxy::Streams;
use strict;
use warnings;
use RProxy::Conversations;
use RProxy::H2;
use RProxy::HPACK;

my $SENTINEL = [[headers => [[':method', 'GET'], [':scheme', 'http'],
    [':path', RProxy::Conversations::SENTINEL_PATH], [':authority', 'www.example.test']],
    end => 1]];

sub new {
    my ($class, $conversation, $out) = @_;
    my $stream = bless { in => '', out => $out }, 'RProxy::Streams::Bytes';
    my $self = bless {
        conversation => $conversation, bytes => $stream, played => [], sentinel => 0,
        waiting => [@{ $conversation->{streams} }],
    }, $class;
    $self->{h2} = RProxy::H2->new($stream, settings => $conversation->{settings});
    $self->go_on;
    return $self;
}

# ---- what RProxy::Conversations calls -------------------------------------------------------

sub received {
    my ($self, $bytes, $closed) = @_;
    my $stream = $self->{bytes};
    $stream->{in} .= $$bytes;
    $$bytes = '';
    while (has_frame($stream->{in})) {
        eval { $self->{h2}->step } or last;
    }
    $self->{garbled} = $@ if $@;
    $stream->{closed} = $closed;
    $self->go_on;
    return;
}

# Streams that wait for the other side are reset.
sub stalled {
    my ($self) = @_;
    my @stuck = grep { !is_done($_) } @{ $self->{played} };
    return 0 if !@stuck || $self->{gave_up}++ > 20;
    for my $played (@stuck) {
        if (($played->{steps}[0][0] // '') eq 'wait') {
            shift @{ $played->{steps} };
            next;
        }
        $played->{stalled} = 1;
        $self->{h2}->send_reset($played->{exchange}->id, RProxy::H2::CANCEL);
    }
    $self->go_on;
    return 1;
}

sub is_over {
    my ($self) = @_;
    return $self->{garbled} || ($self->{sentinel} && !grep { !is_done($_) } @{ $self->{played} });
}

# ---- sending --------------------------------------------------------------------------------

# True if there is a frame, and behind HEADERS all of CONTINUATION.
sub has_frame {
    my ($in) = @_;
    my $at = 0;
    while (length $in >= $at + 9) {
        my ($high, $low, $type, $flags) = unpack 'CnCC', substr $in, $at, 9;
        $at += 9 + ($high << 16 | $low);
        return 0 if length $in < $at;
        return 1 if $flags & RProxy::H2::END_HEADERS
            || ($type != RProxy::H2::HEADERS && $type != RProxy::H2::CONTINUATION);
    }
    return 0;
}

sub is_done {
    my ($played) = @_;
    my $exchange = $played->{exchange};
    return $played->{stalled} || $exchange->_over || $played->{left};
}

sub go_on {
    my ($self) = @_;
    my $together = $self->{conversation}{together};
    my $gone = $self->{h2}{goaway} || defined $self->{bytes}{closed};
    my $send = sub {
        while (1) {
            $self->send_steps($_) for grep { !is_done($_) } @{ $self->{played} };
            if ($gone) {
                $_->{left} = 1 for @{ $self->{played} };
                $self->{sentinel} = 1;
            }
            last if grep { !is_done($_) } @{ $self->{played} } and !$together;
            last if !$self->begin_next;
        }
    };
    return $self->{conversation}{one_write} ? $self->{h2}->together($send) : $send->();
}

# A stream that waits for its turn, or the last one.
sub begin_next {
    my ($self) = @_;
    my $steps = shift @{ $self->{waiting} };
    if (!$steps) {
        return 0 if $self->{sentinel} || grep { !is_done($_) } @{ $self->{played} };
        $self->{sentinel} = 1;
        $steps = $SENTINEL;
    }
    my ($method) = map { $_->[1] } grep { $_->[0] eq ':method' } @{ $steps->[0][1] };
    push @{ $self->{played} }, { steps => [map { [@$_] } @$steps],
        exchange => RProxy::H2::Exchange->new($self->{h2}, $method // 'GET') };
    return 1;
}

# As many steps as can be done now.
sub send_steps {
    my ($self, $played) = @_;
    my ($steps, $exchange) = @$played{qw(steps exchange)};
    while (@$steps) {
        my ($what, @args) = @{ $steps->[0] };
        if ($what eq 'data') {
            $self->send_data($exchange, $steps->[0]) or return;
        }
        elsif ($what eq 'wait' || $what eq 'tunnel') {
            my $head = $exchange->{final};
            return if !$head && ($what eq 'tunnel' || !@{ $exchange->{interim} });
            @$steps = (['tunnel']) if $what eq 'tunnel' && $head->status !~ /^2/;
        }
        elsif ($what eq 'reset') {
            $self->{h2}->send_reset($exchange->id, @args);
            $played->{left} = 1;
        }
        elsif ($what eq 'frame') {
            my ($type, $flags, $payload) = @args;
            $self->{h2}->send_frame($type, $flags, $exchange->id, $payload);
        }
        else {
            $self->send_head($exchange, @args);
        }
        shift @$steps;
    }
    return;
}

# True when all of it has been sent.
sub send_data {
    my ($self, $exchange, $step) = @_;
    my (undef, $bytes, %options) = @$step;
    my $h2 = $self->{h2};
    while (length $bytes) {
        my $cost = defined $options{pad} ? $options{pad} + 1 : 0;
        my $size = $exchange->room - $cost;
        if ($size <= 0) {
            $step->[1] = $bytes;
            return 0;
        }
        my $piece = substr $bytes, 0, $size, '';
        $_->{window} -= $cost + length $piece for $exchange, $h2;
        my $flags = $options{end} && $bytes eq '' ? RProxy::H2::END_STREAM : 0;
        $self->send_padded(RProxy::H2::DATA, $flags, $exchange->id, $piece, $options{pad});
        return 1 if $bytes eq '';
    }
    return $h2->send_frame(RProxy::H2::DATA, $options{end} ? RProxy::H2::END_STREAM : 0,
        $exchange->id, '');
}

sub send_padded {
    my ($self, $type, $flags, $id, $payload, $pad) = @_;
    if (defined $pad) {
        $flags |= RProxy::H2::PADDED;
        $payload = chr($pad) . $payload . "\0" x $pad;
    }
    return $self->{h2}->send_frame($type, $flags, $id, $payload);
}

sub send_head {
    my ($self, $exchange, $fields, %options) = @_;
    my $block = $options{indexed} ? RProxy::HPACK->encode_indexed(@$fields)
                                  : RProxy::HPACK->encode(@$fields);
    my $h2 = $self->{h2};
    my $id = $exchange->id;
    my $flags = $options{end} ? RProxy::H2::END_STREAM : 0;
    my $size = $h2->{max_frame} - 300;
    $size = int(length($block) / $options{split}) + 1 if ($options{split} // 1) > 1
        && length($block) / $options{split} < $size;
    my @pieces = unpack "(a$size)*", $block;
    @pieces = ('') if !@pieces;
    my $first = shift @pieces;
    if (defined $options{priority}) {
        $flags |= RProxy::H2::PRIORITISED;
        $first = pack('NC', @{ $options{priority} }) . $first;
    }
    # Nothing may come between them, so they are one piece.
    my @frames = ([RProxy::H2::HEADERS, $flags, $first, $options{pad}],
        map { [RProxy::H2::CONTINUATION, 0, $_] } @pieces);
    $frames[-1][1] |= RProxy::H2::END_HEADERS;
    my $send = sub { $self->send_padded($_->[0], $_->[1], $id, @$_[2, 3]) for @frames };
    return defined $h2->{held} ? $send->() : $h2->together($send);
}

# ---- what was seen --------------------------------------------------------------------------

# [{ interim, head, body, trailers, end }], a stream each; heads are [status, [[name, value] ...]].
# RST_STREAM behind the end is no news.
sub streams {
    my ($self) = @_;
    return map { {
        interim  => [map { head_of($_) } @{ $_->{exchange}{interim} }],
        head     => $_->{exchange}{final} ? head_of($_->{exchange}{final}) : undef,
        body     => $_->{exchange}{arrived},
        trailers => $_->{exchange}{trailers},
        end      => $self->end_of($_),
    } } @{ $self->{played} };
}

sub head_of { return [$_[0]->status, [RProxy::Message::pairs($_[0]->headers)]] }

sub end_of {
    my ($self, $played) = @_;
    my $exchange = $played->{exchange};
    my $length = $exchange->{final} && $exchange->{final}->header('Content-Length');
    return 'ended' . (defined $length && $exchange->{arrived} ne ''
        && $length != length $exchange->{arrived} ? ', of another length' : '')
        if $exchange->{ended};
    return 'reset: ' . RProxy::H2::error_name($exchange->{reset}) if defined $exchange->{reset};
    return 'stalled' if $played->{stalled};
    return $self->{h2}{goaway} || defined $self->{bytes}{closed} ? 'lost' : 'left by the client';
}

# How the connection ended.
sub ending {
    my ($self) = @_;
    return "garbled: $self->{garbled}" if $self->{garbled};
    return 'GOAWAY ' . RProxy::H2::error_name($self->{h2}{goaway}) if $self->{h2}{goaway};
    return $self->{bytes}{closed} // 'open';
}

# What RProxy::H2 reads from and writes to.
package RProxy::Streams::Bytes;
use strict;
use warnings;

sub write {
    my ($self, $bytes) = @_;
    push @{ $self->{out} }, $bytes if $bytes ne '';
    return 1;
}

# Everything that is asked for is there.
sub take_exact { my ($self, $size) = @_; return substr $self->{in}, 0, $size, '' }
sub closed { return $_[0]{closed} }

1;
