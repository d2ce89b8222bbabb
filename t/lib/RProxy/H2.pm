# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# An HTTP/2 client (RFC 9113) over a stream that is connected already: prior knowledge, or ALPN h2
# over TLS. Exchanges may run side by side on one connection; frames are read only while a test
# waits for something, so a test that does not read is a client that does not read. For hostile
# clients, send_frame sends anything.
package RProxy::H2;
use strict;
use warnings;
use RProxy::Client;
use RProxy::HPACK;
use RProxy::Message;
use RProxy::Wait ();

use constant {
    DATA => 0, HEADERS => 1, PRIORITY => 2, RST_STREAM => 3, SETTINGS => 4, PUSH_PROMISE => 5,
    PING => 6, GOAWAY => 7, WINDOW_UPDATE => 8, CONTINUATION => 9,
};
use constant { END_STREAM => 1, ACK => 1, END_HEADERS => 4, PADDED => 8, PRIORITISED => 0x20 };
use constant {
    SETTING_ENABLE_PUSH => 2, SETTING_INITIAL_WINDOW => 4, SETTING_MAX_FRAME => 5,
    SETTING_ENABLE_CONNECT_PROTOCOL => 8,
};
use constant { NO_ERROR => 0, CANCEL => 8 };

my @ERRORS = qw(NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT
    STREAM_CLOSED FRAME_SIZE_ERROR REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR
    ENHANCE_YOUR_CALM INADEQUATE_SECURITY HTTP_1_1_REQUIRED);

sub error_name { return $ERRORS[$_[0]] // "error $_[0]" }

# Options: settings => { id => value }, auto_window => 0 (the test sends window updates itself),
# host_header, trace => [] (gets [type, flags, stream, length] of each frame read).
sub new {
    my ($class, $stream, %args) = @_;
    my $self = bless {
        stream         => $stream,
        decoder        => RProxy::HPACK->new,
        next_id        => 1,
        exchanges      => {},
        window         => 65_535,    # what we may still send on the connection
        initial_window => 65_535,    # of new streams, as the peer says
        max_frame      => 16_384,
        peer_settings  => {},
        goaway         => undef,     # error code of the peer's GOAWAY
        goaways        => [],        # the last stream that each of them names
        acknowledged   => 0,         # SETTINGS of ours
        answered       => 0,        # frames of answers so far
        auto_window    => 1,
        %args,
    }, $class;
    $stream->{duplex} = 1;
    my %settings = (SETTING_ENABLE_PUSH, 0, %{ $args{settings} // {} });
    $stream->write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    $self->send_frame(SETTINGS, 0, 0,
        join '', map { pack 'nN', $_, $settings{$_} } sort keys %settings);
    return $self;
}

# A plain connection with prior knowledge. Options: those of RProxy::Stream's connect, and of new.
sub connect {
    my ($class, %args) = @_;
    my %connect = map { exists $args{$_} ? ($_ => delete $args{$_}) : () }
        qw(host port receive_buffer timeout);
    return $class->new(RProxy::Client->connect(%connect), %args);
}

sub stream { return $_[0]{stream} }
sub goaway { return $_[0]{goaway} }
sub peer_settings { return $_[0]{peer_settings} }
sub close { return $_[0]{stream}->close }
# True if nothing of an answer arrives for so long, nor the end.
sub quiet_for {
    my ($self, $seconds) = @_;
    my $end = RProxy::Wait::now() + $seconds;
    my $before = $self->{answered};
    do {
        my $left = $end - RProxy::Wait::now();
        return 1 if $self->{stream}->quiet_for($left > 0 ? $left : 0);
        $self->step('frames') or return 0;
    } until defined $self->{goaway} || $self->{answered} != $before;
    return 0;
}

# Handles what comes until the peer ends the connection; how it did: eof, or reset, or cut.
sub wait_closed {
    my ($self, $timeout) = @_;
    1 while $self->step('the peer to close', $timeout);
    return $self->{stream}->wait_closed($timeout);
}


sub send_frame {
    my ($self, $type, $flags, $id, $payload) = @_;
    my $frame = substr(pack('N', length $payload), 1) . pack('CCN', $type, $flags, $id) . $payload;
    if (defined $self->{held}) {
        $self->{held} .= $frame;
        return 1;
    }
    return $self->{stream}->write($frame);
}

# What the sub sends leaves in one piece. It must not wait for anything.
sub together {
    my ($self, $code) = @_;
    $self->{held} = '';
    my @result = $code->();
    $self->{stream}->write(delete $self->{held});
    return wantarray ? @result : $result[0];
}

# The next frame as (type, flags, stream id, payload); nothing when the connection has ended.
sub read_frame {
    my ($self, $what, $timeout) = @_;
    my $stream = $self->{stream};
    local $stream->{label} = "h2 client, waiting for $what" if $what;
    my $head = $stream->take_exact(9, $timeout) // return;
    my ($high, $low, $type, $flags, $id) = unpack 'CnCCN', $head;
    my $payload = $stream->take_exact($high << 16 | $low, $timeout) // return;
    return ($type, $flags, $id & 0x7fffffff, $payload);
}

# Reads and handles one frame; false when the connection has ended.
sub step {
    my ($self, $what, $timeout) = @_;
    my ($type, $flags, $id, $payload) = $self->read_frame($what, $timeout);
    return 0 unless defined $type;
    push @{ $self->{trace} }, [$type, $flags, $id, length $payload] if $self->{trace};
    my $exchange = $self->{exchanges}{$id};
    $self->{answered}++ if $type == DATA || $type == HEADERS || $type == RST_STREAM;
    if ($type == DATA) { $self->_on_data($exchange, $flags, $id, $payload) }
    elsif ($type == HEADERS) { $self->_on_headers($exchange, $flags, $payload, $timeout) }
    elsif ($type == SETTINGS) { $self->_on_settings($flags, $payload) }
    elsif ($type == PING && $flags & ACK) { $self->{pongs}++ }
    elsif ($type == PING) { $self->send_frame(PING, ACK, 0, $payload) }
    elsif ($type == GOAWAY) {
        (my $last, $self->{goaway}) = unpack 'NN', $payload;
        push @{ $self->{goaways} }, $last & 0x7fffffff;
    }
    elsif ($type == RST_STREAM && $exchange) { $exchange->{reset} = unpack 'N', $payload }
    elsif ($type == WINDOW_UPDATE) {
        my $window = $id ? $exchange && \$exchange->{window} : \$self->{window};
        $$window += unpack 'N', $payload if $window;
    }
    return 1;
}

sub _strip_padding {
    my ($flags, $payload) = @_;
    return $payload unless $flags & PADDED;
    my $padding = ord substr $payload, 0, 1, '';
    return substr $payload, 0, length($payload) - $padding;
}

sub _on_data {
    my ($self, $exchange, $flags, $id, $payload) = @_;
    my $size = length $payload;
    if ($self->{auto_window} && $size) {
        $self->send_frame(WINDOW_UPDATE, 0, 0, pack 'N', $size);
        $self->send_frame(WINDOW_UPDATE, 0, $id, pack 'N', $size) unless $flags & END_STREAM;
    }
    return unless $exchange;
    $exchange->{arrived} .= _strip_padding($flags, $payload);
    $exchange->{ended} = 1 if $flags & END_STREAM;
    return;
}

sub _on_headers {
    my ($self, $exchange, $flags, $payload, $timeout) = @_;
    my $ends = $flags & END_STREAM;
    my $block = _strip_padding($flags, $payload);
    substr $block, 0, 5, '' if $flags & PRIORITISED;
    while (!($flags & END_HEADERS)) {
        (my $type, $flags, undef, $payload) = $self->read_frame('CONTINUATION', $timeout);
        die "h2 client: no CONTINUATION after HEADERS\n" if ($type // -1) != CONTINUATION;
        $block .= $payload;
    }
    my $fields = $self->{decoder}->decode($block);
    return unless $exchange;
    $exchange->on_fields($fields);
    $exchange->{ended} = 1 if $ends;
    return;
}

sub _on_settings {
    my ($self, $flags, $payload) = @_;
    if ($flags & ACK) {
        $self->{acknowledged}++;
        return;
    }
    while (length $payload) {
        my ($id, $value) = unpack 'nN', substr $payload, 0, 6, '';
        $self->{peer_settings}{$id} = $value;
        $self->{max_frame} = $value if $id == SETTING_MAX_FRAME;
        next if $id != SETTING_INITIAL_WINDOW;
        $_->{window} += $value - $self->{initial_window} for values %{ $self->{exchanges} };
        $self->{initial_window} = $value;
    }
    $self->send_frame(SETTINGS, ACK, 0, '');
    return;
}

# Waits until the peer's settings are there.
sub wait_settings {
    my ($self, $timeout) = @_;
    while (!%{ $self->{peer_settings} }) {
        $self->step('SETTINGS', $timeout) or die "h2 client: connection ended\n";
    }
    return $self->{peer_settings};
}

# Waits until the peer has looked at everything sent so far; false when the connection has ended.
sub ping {
    my ($self, $timeout) = @_;
    my $pongs = $self->{pongs} // 0;
    $self->send_frame(PING, 0, 0, "\0" x 8);
    while (($self->{pongs} // 0) == $pongs) {
        $self->step('an answered PING', $timeout) or return 0;
    }
    return 1;
}

# Reads until the peer has ended the connection; the error of its GOAWAY by name, or how it ended.
sub end {
    my ($self, $timeout) = @_;
    1 while $self->step('the end of the connection', $timeout);
    return defined $self->{goaway} ? error_name($self->{goaway}) : $self->{stream}->closed;
}

# Begins a stream with these fields, whatever they are.
sub begin_fields {
    my ($self, $fields, $ends) = @_;
    my ($method) = map { $_->[1] } grep { $_->[0] eq ':method' } @$fields;
    my $exchange = RProxy::H2::Exchange->new($self, $method // 'GET');
    $self->send_headers($exchange->{id}, $fields, $ends);
    return $exchange;
}

# Begins a stream with a header block as it is.
sub begin_block {
    my ($self, $block, $ends) = @_;
    my $exchange = RProxy::H2::Exchange->new($self, 'GET');
    $self->send_block($exchange->{id}, $block, $ends);
    return $exchange;
}

# Begins a request. Options as for RProxy::Client's begin, and scheme, protocol (extended CONNECT).
# A Host header becomes :authority. Connection-specific fields are sent as the test says.
sub begin {
    my ($self, $method, $target, $options) = @_;
    my %options = %{ $options // {} };
    my @headers = map { [lc $_->[0], $_->[1]] } RProxy::Message::pairs($options{headers});
    my ($host) = map { $_->[1] } grep { $_->[0] eq 'host' } @headers;
    @headers = grep { $_->[0] ne 'host' } @headers;
    $host //= $options{host} // $self->{host_header};
    my $body = $options{body};
    my %has = map { $_->[0] => 1 } @headers;
    push @headers, ['expect', '100-continue'] if $options{expect} && !$has{expect};
    push @headers, ['content-length', length $body]
        if defined $body && !ref $body && !$options{chunked} && !$has{'content-length'};
    my @pseudo = ([':method', $method], [':scheme', $options{scheme} // 'https'],
        [':path', $target], (length($host // '') ? [':authority', $host] : ()));
    splice @pseudo, 1, 0, [':protocol', $options{protocol}] if $options{protocol};
    @pseudo = grep { $_->[0] !~ /scheme|path/ } @pseudo
        if $method eq 'CONNECT' && !$options{protocol};
    my $has_body = $options{stream} || $options{trailers} || ref $body || length($body // '');
    my $exchange = RProxy::H2::Exchange->new($self, $method);
    $self->send_headers($exchange->{id}, [@pseudo, @headers], !$has_body);
    return $exchange unless $has_body;
    return $exchange->send_body(\%options);
}

sub request {
    my ($self, $method, $target, $options) = @_;
    return $self->begin($method, $target, $options)->response(($options // {})->{timeout});
}

sub get {
    my ($self, $target, @headers) = @_;
    return $self->request('GET', $target, { headers => \@headers });
}

# Fields as they are, in HEADERS and as many CONTINUATION frames as it takes.
sub send_headers {
    my ($self, $id, $fields, $ends) = @_;
    return $self->send_block($id, RProxy::HPACK->encode(@$fields), $ends);
}

sub send_block {
    my ($self, $id, $block, $ends) = @_;
    my ($type, $flags) = (HEADERS, $ends ? END_STREAM : 0);
    while (length $block > $self->{max_frame}) {
        $self->send_frame($type, $flags, $id, substr $block, 0, $self->{max_frame}, '');
        ($type, $flags) = (CONTINUATION, 0);
    }
    return $self->send_frame($type, $flags | END_HEADERS, $id, $block);
}

sub send_reset {
    my ($self, $id, $code) = @_;
    return $self->send_frame(RST_STREAM, 0, $id, pack 'N', $code // CANCEL);
}

# One stream.
package RProxy::H2::Exchange;
use strict;
use warnings;
use parent -norequire, 'RProxy::Exchange';
use RProxy::Exchange;

sub new {
    my ($class, $connection, $method) = @_;
    my $self = bless {
        connection => $connection,
        id         => $connection->{next_id},
        method     => $method,
        window     => $connection->{initial_window},
        fields     => [],       # interim heads not yet given out
        interim    => [],
        head       => undef,
        final      => undef,    # the final head, not yet given out
        trailers   => [],
        arrived    => '',       # body bytes from DATA
        unread     => '',
        taken      => '',
        length     => 0,        # body bytes given out
        ended      => 0,        # END_STREAM
        reset      => undef,    # error code of RST_STREAM
    }, $class;
    $connection->{next_id} += 2;
    return $connection->{exchanges}{ $self->{id} } = $self;
}

sub id { return $_[0]{id} }
sub client { return $_[0]{connection} }
sub version { return '2' }

# The final head has been read, with whatever else was waited for.
sub has_head { return $_[0]{head} || $_[0]{final} ? 1 : 0 }

sub error {
    my ($self) = @_;
    return 'RST_STREAM ' . RProxy::H2::error_name($self->{reset}) if defined $self->{reset};
    my $connection = $self->{connection};
    return 'GOAWAY ' . RProxy::H2::error_name($connection->{goaway})
        if $connection->{goaway};
    my $closed = $connection->{stream}->closed;
    return defined $closed ? "connection ended by $closed" : undef;
}

sub on_fields {
    my ($self, $fields) = @_;
    my ($status) = map { $_->[1] } grep { $_->[0] eq ':status' } @$fields;
    if (!defined $status) {
        $self->{trailers} = $fields;
        return;
    }
    my $head = RProxy::Message->new(version => '2', status => $status,
        headers => [grep { $_->[0] !~ /^:/ } @$fields]);
    if ($status =~ /^1/) {
        push @{ $self->{interim} }, $head;
        push @{ $self->{fields} }, $head;
        return;
    }
    $self->{final} = $head;
    return;
}

sub quiet_for { my ($self, $seconds) = @_; return $self->{connection}->quiet_for($seconds) }

sub _over { my ($self) = @_; return $self->{ended} || defined $self->{reset} }

sub next_head {
    my ($self, $timeout) = @_;
    return undef if $self->{head};
    while (1) {
        my $interim = shift @{ $self->{fields} };
        return $interim if $interim;
        return $self->{head} = $self->{final} if $self->{final};
        return undef if $self->_over;
        $self->{connection}->step('a response head', $timeout) or return undef;
    }
}

sub read_some {
    my ($self, $timeout) = @_;
    return substr $self->{unread}, 0, length $self->{unread}, '' if $self->{unread} ne '';
    while ($self->{arrived} eq '' && !$self->_over) {
        $self->{connection}->step('body bytes', $timeout) or last;
    }
    $self->{length} += length $self->{arrived};
    return substr $self->{arrived}, 0, length $self->{arrived}, '';
}

sub settle {
    my ($self, $message) = @_;
    $message->{trailers} = $self->{trailers};
    $message->{framing} = 'h2';
    my $length = $message->header('Content-Length');
    if (!$self->{ended}) {
        $message->{error} = $self->error;
    }
    elsif (defined $length && $self->{method} ne 'HEAD' && $message->{status} !~ /^(?:204|304)$/
        && $length != $self->{length}) {
        $message->{error} = "Content-Length is $length, but $self->{length} bytes came";
    }
    else {
        $message->{complete} = 1;
    }
    return;
}

# Sends DATA as the windows allow; false once the peer has ended the stream.
sub write {
    my ($self, $bytes, $timeout, $ends) = @_;
    my $connection = $self->{connection};
    while (length $bytes) {
        return 0 if defined $self->{reset};
        if (!$self->room) {
            $connection->step('WINDOW_UPDATE', $timeout) or return 0;
            next;
        }
        my $sent = $self->write_now($bytes) or return 0;
        substr $bytes, 0, $sent, '';
    }
    return 1;
}

# How much the next DATA frame may have.
sub room {
    my ($self) = @_;
    my $connection = $self->{connection};
    my $room = $self->{window} < $connection->{window} ? $self->{window} : $connection->{window};
    return 0 if $room <= 0;
    return $room < $connection->{max_frame} ? $room : $connection->{max_frame};
}

# Sends what fits into one DATA frame, without waiting for windows; returns how much that was.
sub write_now {
    my ($self, $bytes) = @_;
    my $piece = substr $bytes, 0, $self->room;
    return 0 if $piece eq '';
    $_->{window} -= length $piece for $self, $self->{connection};
    $self->{connection}->send_frame(RProxy::H2::DATA, 0, $self->{id}, $piece) or return 0;
    return length $piece;
}

sub finish {
    my ($self, @trailers) = @_;
    my $connection = $self->{connection};
    return $connection->send_headers($self->{id}, [map { [lc $_->[0], $_->[1]] } @trailers], 1)
        if @trailers;
    return $connection->send_frame(RProxy::H2::DATA, RProxy::H2::END_STREAM, $self->{id}, '');
}

sub abort {
    my ($self) = @_;
    return $self->{connection}->send_reset($self->{id}, RProxy::H2::CANCEL);
}

sub close { return $_[0]{connection}->close }

1;
