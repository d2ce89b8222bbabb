# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# WebSocket (RFC 6455) over anything with read_exact and write: a client connection after its
# handshake, an upstream's connection, or an HTTP/2 exchange after extended CONNECT.
package RProxy::WebSocket;
use strict;
use warnings;
use Carp ();
use Digest::SHA qw(sha1_base64);
use MIME::Base64 qw(encode_base64);
use RProxy::Wait ();
use RProxy::Message;

use constant { CONTINUATION => 0, TEXT => 1, BINARY => 2, CLOSE => 8, PING => 9, PONG => 10 };

# Wraps a stream that speaks WebSocket already; a client masks what it sends.
sub over {
    my ($class, $stream, %args) = @_;
    return bless { stream => $stream, mask => 1, %args }, $class;
}

sub accept_value {
    my ($key) = @_;
    return sha1_base64($key . '258EAFA5-E914-47DA-95CA-C5AB0DC85B11') . '=';
}

# Handshake of a client on an RProxy::Client; dies unless it is accepted. Options: headers.
sub client {
    my ($class, $client, $target, %options) = @_;
    my $key = encode_base64(join('', map { chr int rand 256 } 1 .. 16), '');
    my $response = $client->request('GET', $target, {
        headers => [
            [Upgrade => 'websocket'], [Connection => 'Upgrade'], ['Sec-WebSocket-Key' => $key],
            ['Sec-WebSocket-Version' => 13], RProxy::Message::pairs($options{headers}),
        ],
    });
    Carp::croak('WebSocket handshake: status ' . ($response->status // 'none'))
        unless ($response->status // 0) == 101;
    Carp::croak('WebSocket handshake: wrong Sec-WebSocket-Accept')
        unless ($response->header('Sec-WebSocket-Accept') // '') eq accept_value($key);
    return $class->over($client, response => $response);
}

# Handshake of a server on an upstream's connection: reads the request and answers 101.
sub server {
    my ($class, $conn, %options) = @_;
    my $request = $conn->read_head // return undef;
    $conn->respond(101, [Upgrade => 'websocket', Connection => 'Upgrade',
        'Sec-WebSocket-Accept' => accept_value($request->header('Sec-WebSocket-Key') // ''),
        map { @$_ } RProxy::Message::pairs($options{headers})]);
    return $class->over($conn, mask => 0, request => $request);
}

sub stream { return $_[0]{stream} }
sub response { return $_[0]{response} }
sub request { return $_[0]{request} }

# One frame; final by default.
sub send_frame {
    my ($self, $opcode, $payload, $not_final) = @_;
    my $length = length $payload;
    my $masked = $self->{mask} ? 0x80 : 0;
    my $head = chr($opcode | ($not_final ? 0 : 0x80));
    $head .= $length < 126 ? chr($masked | $length)
        : $length < 65_536 ? pack('Cn', $masked | 126, $length)
        :                    pack('CQ>', $masked | 127, $length);
    if ($self->{mask}) {
        my $mask = join '', map { chr int rand 256 } 1 .. 4;
        $head .= $mask;
        $payload ^= substr $mask x ($length / 4 + 1), 0, $length;
    }
    return $self->{stream}->write($head . $payload);
}

sub send_text { return $_[0]->send_frame(TEXT, $_[1]) }
sub send_ping { return $_[0]->send_frame(PING, $_[1] // '') }

sub send_close {
    my ($self, $code, $reason) = @_;
    return $self->send_frame(CLOSE, pack('n', $code // 1000) . ($reason // ''));
}

# (opcode, payload, final) of the next frame.
sub read_frame {
    my ($self, $timeout) = @_;
    my $stream = $self->{stream};
    my ($first, $second) = unpack 'CC', $stream->read_exact(2, $timeout);
    my $length = $second & 127;
    $length = unpack 'n', $stream->read_exact(2, $timeout) if $length == 126;
    $length = unpack 'Q>', $stream->read_exact(8, $timeout) if $length == 127;
    my $mask = $second & 0x80 ? $stream->read_exact(4, $timeout) : undef;
    my $payload = $stream->read_exact($length, $timeout);
    $payload ^= substr $mask x ($length / 4 + 1), 0, $length if defined $mask;
    return ($first & 15, $payload, $first & 0x80 ? 1 : 0);
}

# The next text frame's payload; dies on any other.
sub read_text {
    my ($self, $timeout) = @_;
    my ($opcode, $payload) = $self->read_frame($timeout);
    Carp::croak("WebSocket: frame with opcode $opcode instead of text") if $opcode != TEXT;
    return $payload;
}

# A server's loop: echoes text and binary, answers ping and close. Returns after the close, or
# when the peer has gone.
sub echo {
    my ($self) = @_;
    my $stream = $self->{stream};
    # Its end of the tunnel is the client's to choose, however long the test takes.
    while ($stream->buffer ne '' || $stream->fill('a frame', RProxy::Wait::now() + 300)) {
        my ($opcode, $payload) = $self->read_frame;
        $self->send_frame($opcode == PING ? PONG : $opcode, $payload);
        return if $opcode == CLOSE;
    }
    return;
}

1;
