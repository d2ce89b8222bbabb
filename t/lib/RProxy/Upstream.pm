# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# A scripted upstream: a listening socket, and a process that forks one more for each connection to
# run the test's handler on it (RProxy::Upstream::Connection). The test and its handlers share a
# directory of plain files: what each connection received, what is known of it, and named events
# in both directions. So everything can be read at any time, also after a process has died.
#
#   $up->on_connection(sub { my ($conn) = @_; ... })   bytes by hand
#   $up->on_request(sub { my ($request) = @_; return [200, [k => v], 'body'] })
#   $up->reply_with(200, ['X-A' => 1], 'body')         every request gets this
#   $up->echo                                          every request gets its own body back
#   $up->crowd(reply => $bytes, delay => 2)            thousands of connections, all the same
package RProxy::Upstream;
use strict;
use warnings;
use Carp ();
use IO::Socket::IP;
use IO::Socket::SSL;
use IO::Socket::UNIX;
use POSIX ();
use RProxy::HTTP1;
use RProxy::Message;
use RProxy::Ports;
use RProxy::Process;
use RProxy::Stream;
use RProxy::Upstream::Connection;
use RProxy::Upstream::Crowd;
use RProxy::Wait qw(wait_until);
use Socket qw(SHUT_RDWR SOCK_STREAM SOMAXCONN);

# A handler waits longer than the test, which says better what it misses.
use constant HANDLER_SECONDS => 120;

# Options: directory, certs (required); unix => 1 or a path, ipv6 => 1, host, port, backlog,
# tls => { names => [...], client_ca => 1, client_optional => 1, and options of IO::Socket::SSL },
# record => 0 keeps no bytes (bulk).
sub new {
    my ($class, %args) = @_;
    my $self = bless { record => 1, owner => $$, signals => {}, consumed => {}, %args }, $class;
    mkdir $self->{directory} or Carp::croak("cannot make $self->{directory}: $!");
    $self->{host} //= $self->{ipv6} ? '::1' : '127.0.0.1';
    if ($self->{unix}) {
        $self->{path} = $self->{unix} eq '1' ? "$self->{directory}/socket" : $self->{unix};
    }
    else {
        $self->{port} //= RProxy::Ports->reserve;
    }
    $self->_tls_context if $self->{tls};
    $self->reply_with(200, ['Content-Type' => 'text/plain'], "upstream\n");
    $self->listen;
    return $self;
}

sub port { return $_[0]{port} }
sub path { return $_[0]{path} }
sub directory { return $_[0]{directory} }

# As it is written in a configuration: http://127.0.0.1:port, unix:/path|http://localhost ...
sub url {
    my ($self, $scheme) = @_;
    $scheme //= $self->{tls} ? 'https' : 'http';
    return "unix:$self->{path}|$scheme://localhost" if $self->{path};
    return "$scheme://" . ($self->{ipv6} ? '[::1]' : $self->{host}) . ":$self->{port}";
}

# The context is made before forking: session tickets of one connection are good for the next.
sub _tls_context {
    my ($self) = @_;
    my %tls = %{ ref $self->{tls} ? $self->{tls} : {} };
    my $names = delete $tls{names} // ['localhost', 'IP:127.0.0.1', 'IP:::1'];
    my ($client_ca, $optional) = delete @tls{qw(client_ca client_optional)};
    my $certificate = delete $tls{certificate} // $self->{certs}->server($names);
    my %verify;
    if ($client_ca || $optional) {
        %verify = (SSL_ca_file => $self->{certs}->ca_file, SSL_verify_mode => SSL_VERIFY_PEER
                | ($optional ? 0 : SSL_VERIFY_FAIL_IF_NO_PEER_CERT),
            SSL_verifycn_scheme => 'none');
    }
    $self->{context} = IO::Socket::SSL::SSL_Context->new(
        SSL_server => 1, SSL_cert_file => $certificate->{cert}, SSL_key_file => $certificate->{key},
        SSL_session_id_context => 'upstream', SSL_verify_mode => SSL_VERIFY_NONE,
        %verify, %tls,
    ) or Carp::croak("TLS context: $IO::Socket::SSL::SSL_ERROR");
    return;
}

# Opens the socket (again): from here on connections are accepted by the kernel, and served once
# start() has run. refuse() closes it: connections are refused.
sub listen {
    my ($self) = @_;
    return $self if $self->{listener};
    if ($self->{path}) {
        unlink $self->{path};
        $self->{listener} = IO::Socket::UNIX->new(Type => SOCK_STREAM, Local => $self->{path},
            Listen => $self->{backlog} // SOMAXCONN) or die "cannot listen on $self->{path}: $!\n";
        chmod 0777, $self->{path};
        return $self;
    }
    $self->{listener} = IO::Socket::IP->new(LocalHost => $self->{host},
        LocalPort => $self->{port}, Type => SOCK_STREAM, ReuseAddr => 1,
        Listen => $self->{backlog} // SOMAXCONN)
        or die "cannot listen on $self->{host}:$self->{port}: $@\n";
    return $self;
}

sub refuse {
    my ($self) = @_;
    $self->stop;
    my $listener = delete $self->{listener} or return;
    # Processes of other upstreams have inherited it; this ends listening for all of them.
    shutdown $listener, SHUT_RDWR;
    close $listener;
    unlink $self->{path} if $self->{path};
    return;
}

# ---- what it does ---------------------------------------------------------------------------

# Changing the handler while it runs ends the connections that are open.
sub on_connection {
    my ($self, $handler) = @_;
    $self->{handler} = $handler;
    delete $self->{crowd};
    return $self->_restart;
}

sub _restart {
    my ($self) = @_;
    if ($self->{pid}) {
        $self->stop;
        $self->start;
    }
    return $self;
}

sub on_request {
    my ($self, $answer) = @_;
    return $self->on_connection(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            my $reply = $answer->($request, $conn) or last;
            $conn->respond(@$reply, $request->method eq 'HEAD') or last;
            my @reply_headers = RProxy::Message::pairs($reply->[1]);
            last if $request->version eq '1.0' || grep {
                lc $_->[0] eq 'connection' && $_->[1] =~ /close/i
            } @{ $request->headers }, @reply_headers;
        }
    });
}

sub reply_with {
    my ($self, @reply) = @_;
    return $self->on_request(sub { return \@reply });
}

sub echo {
    my ($self) = @_;
    return $self->on_request(sub {
        my ($request) = @_;
        my $type = $request->header('Content-Type') // 'application/octet-stream';
        return [200, ['Content-Type' => $type, 'X-Method' => $request->method,
                'X-Target' => $request->target], $request->body];
    });
}

# For many connections at once: one process, no TLS, nothing recorded; each request notifies
# 'request'. Options: reply (bytes), delay, tunnel => 1 (echoes bytes after the reply), hold => NAME
# (replies wait until the test signals it).
sub crowd {
    my ($self, %options) = @_;
    $self->{crowd} = \%options;
    return $self->_restart;
}

sub start {
    my ($self) = @_;
    return $self if $self->{pid};
    $self->listen;
    my $pid = fork // die "fork: $!\n";
    if (!$pid) {
        # Nothing of the test's own may run here: neither END blocks nor destructors.
        eval { $self->_accept_loop; 1 } or $self->_append('errors', "accepting: $@");
        POSIX::_exit(0);
    }
    POSIX::setpgid($pid, $pid);
    $self->{pid} = $pid;
    return $self;
}

sub _accept_loop {
    my ($self) = @_;
    POSIX::setpgid(0, 0);
    $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
    $SIG{CHLD} = 'IGNORE';
    $SIG{PIPE} = 'IGNORE';
    RProxy::Stream::drop_inherited();
    return $self->_serve_crowd if $self->{crowd};
    my $number = () = glob "$self->{directory}/*.meta";
    while (getppid == $self->{owner}) {
        my $bits = '';
        vec($bits, $self->{listener}->fileno, 1) = 1;
        next unless select $bits, undef, undef, 0.5;
        my $socket = $self->{listener}->accept or next;
        $number++;
        $self->_append("$number.meta", '');
        $self->_append('accepted', "$number\n");
        my $pid = fork // die "fork: $!\n";
        next if $pid;
        $SIG{CHLD} = 'DEFAULT';
        close $self->{listener};
        $self->_serve($number, $socket);
        POSIX::_exit(0);
    }
    kill 'KILL', -$$;
    return;
}

sub _serve_crowd {
    my ($self) = @_;
    my $hold = $self->{crowd}{hold};
    my $crowd = RProxy::Upstream::Crowd->new(listener => $self->{listener}, %{ $self->{crowd} },
        may_reply => defined $hold ? sub { return $self->count($hold, 'signals') } : undef,
        on_request => sub { $self->_append('events', "request\n") });
    return $crowd->run(sub { return getppid == $self->{owner} });
}

sub _serve {
    my ($self, $number, $socket) = @_;
    my $conn = RProxy::Upstream::Connection->new(socket => $socket, number => $number,
        upstream => $self, label => "upstream, connection $number", timeout => HANDLER_SECONDS);
    if ($self->{context} && !$conn->accept_tls($self->{context})) {
        $conn->meta(tls_error => "$IO::Socket::SSL::SSL_ERROR");
        $conn->notify('tls-error');
        return;
    }
    if (!eval { $self->{handler}->($conn); 1 }) {
        my $error = $@;
        $self->_append('errors', "connection $number: $error");
    }
    $conn->close;
    return;
}

# One write to an append-only file: whole lines, whoever else writes.
sub _append {
    my ($self, $file, $bytes) = @_;
    open my $fh, '>>:raw', "$self->{directory}/$file" or die "$self->{directory}/$file: $!\n";
    syswrite $fh, $bytes;
    close $fh;
    return;
}

sub _content {
    my ($self, $file) = @_;
    open my $fh, '<:raw', "$self->{directory}/$file" or return '';
    local $/;
    return <$fh> // '';
}

# Ends the process and all its connections at once; the socket stays open.
sub stop {
    my ($self) = @_;
    my $pid = delete $self->{pid} or return;
    kill 'KILL', -$pid or kill 'KILL', $pid;
    waitpid $pid, 0;
    wait_until('connections of an upstream to end', undef,
        sub { return !RProxy::Process::members_of_group($pid) });
    return;
}

# ---- events ---------------------------------------------------------------------------------

# To the handlers: the n-th wait_for(name) of each connection waits for the n-th signal(name).
sub signal {
    my ($self, $name) = @_;
    $self->_append('signals', "$name\n");
    return;
}

# From the handlers: each call waits for one more notify(name).
sub wait_event {
    my ($self, $name, $seconds) = @_;
    my $wanted = ++$self->{consumed}{$name};
    return wait_until("event '$name' of the upstream", $seconds, sub {
        die "upstream failed while event '$name' was awaited: $_\n" for $self->errors;
        return $self->count($name) >= $wanted;
    });
}

# How often an event was notified so far.
sub count {
    my ($self, $name, $file) = @_;
    return scalar grep { $_ eq $name } split /\n/, $self->_content($file // 'events');
}

# What handlers died of; the test fails when there is any, unless expect_errors was called.
sub errors {
    my ($self) = @_;
    return () if $self->{errors_expected};
    my $errors = $self->_content('errors');
    return length $errors ? ($errors) : ();
}

sub expect_errors { my ($self) = @_; $self->{errors_expected} = 1; return $self }

# ---- what it saw ----------------------------------------------------------------------------

# Connections in the order accepted, each a hash: number, raw (bytes received), and, as far as
# known, sni, alpn, client_cert (its subject), tls_version, session_reused, tls_error, closed.
sub connections {
    my ($self) = @_;
    return map {
        my $number = $_;
        +{ number => $number, raw => $self->_content("$number.raw"),
            map { split /=/, $_, 2 } split /\n/, $self->_content("$number.meta") };
    } split /\n/, $self->_content('accepted');
}

# Requests in the order in which handlers read their heads, as messages; connection is the number
# of theirs. A body is there as far as it was received.
sub requests {
    my ($self) = @_;
    my %raw;
    return map {
        my ($number, $offset) = split / /;
        $raw{$number} //= $self->_content("$number.raw");
        my $request = _parse_request(substr $raw{$number}, $offset);
        $request->{connection} = $number;
        $request;
    } split /\n/, $self->_content('requests');
}

sub request {
    my ($self, $index) = @_;
    return ($self->requests)[$index // -1];
}

sub _parse_request {
    my ($raw) = @_;
    my $stream = bless { buffer => $raw, closed => 'eof', label => 'recorded request' },
        'RProxy::Stream';
    my $request = RProxy::HTTP1::read_head($stream);
    return RProxy::HTTP1::Body->new($stream, $request->body_framing)->finish($request);
}

sub wait_requests {
    my ($self, $count, $seconds) = @_;
    return wait_until("$count requests at the upstream", $seconds, sub {
        my @requests = split /\n/, $self->_content('requests');
        return @requests >= $count;
    });
}

sub wait_connections {
    my ($self, $count, $seconds) = @_;
    return wait_until("$count connections at the upstream", $seconds, sub {
        my @accepted = split /\n/, $self->_content('accepted');
        return @accepted >= $count;
    });
}

1;
