#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Requests that the engine hands to the pipeline, and the connection back: whatever they wait for,
# it holds up neither the engine nor each other.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use RProxy::Lanes;
use POSIX ();

use constant MIB => 1_048_576;

my @engine = (lanes => [qw(engine engine-tls)]);
my @GUARD = ('<Location /guarded>', 'Header set X-Guard 1', '</Location>', 'RProxyPass /static !',
    'RProxyPass /cgi !');

# Engine and pipeline beside each other; the upstream echoes, or holds what is for /guarded/held.
sub proxied {
    my ($t, %mpm) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            if ($request->target =~ /held/) {
                $conn->notify('held');
                $conn->wait_for('go');
            }
            $conn->respond(200, ['X-Target' => $request->target], $request->body) or last;
        }
    });
    $t->extra_modules('headers');
    $t->mpm_config(%mpm);
    $t->config(@GUARD, 'RProxyPass / ' . $up->url . '/');
    $t->access_format('%{rproxy-lane}e %{rproxy-driver}e %U');
    return $up;
}

sub answered {
    my ($t, $target, $name) = @_;
    is($t->get($target)->status, 200, $name);
    return;
}

# A script that holds a thread of httpd's until the test writes a line for it into the gate.
sub slow_handler {
    my ($t) = @_;
    my $directory = $t->directory . '/cgi';
    $t->file('cgi/slow', <<"EOT");
#!/bin/sh
: > "$directory/started/\$\$"
read nothing < "$directory/gate"
printf 'Content-Type: text/plain\\n\\nslow\\n'
EOT
    chmod 0755, "$directory/slow";
    mkdir "$directory/started";
    chmod 01777, "$directory/started";
    POSIX::mkfifo("$directory/gate", 0644) or die "mkfifo: $!\n";
    $t->extra_modules(qw(alias cgid));
    $t->server_config("ScriptAlias /cgi/ \"$directory/\"", "ScriptSock \"$directory/socket\"",
        "<Directory \"$directory\">", 'Require all granted', '</Directory>');
    sysopen my $gate, "$directory/gate", POSIX::O_RDWR() or die "gate: $!\n";
    return {
        started => sub { my @files = glob "$directory/started/*"; return scalar @files },
        release => sub { syswrite $gate, "\n" x $_[0] },
    };
}

behaviour 'slow handlers in every thread of the pipeline do not hold up the engine', @engine, sub {
    my ($t) = @_;
    my $slow = slow_handler($t);
    proxied($t, ThreadsPerChild => 64, MaxRequestWorkers => 64, ThreadLimit => 64);
    $t->start;
    answered($t, '/guarded', 'one thread of the lane is there and idle');
    my @waiting = map { $t->begin('GET', '/cgi/slow') } 1 .. 64;
    wait_until('64 scripts to run at once', undef, sub { return $slow->{started}->() == 64 });
    for my $number (1 .. 20) {
        my $response = $t->get("/$number");
        is($response->status, 200, "new connection $number") if $response->status != 200;
    }
    my $client = $t->raw_client;
    is($client->get("/$_")->status, 200, 'a connection that is kept') for 1 .. 3;
    $slow->{release}->(64);
    my @answers = map { $_->response } @waiting;
    is(join(' ', map { $_->status // $_->error } grep { $_->body ne "slow\n" } @answers), '',
        'all scripts are answered');
};

behaviour 'more requests park than there are threads', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t, ThreadsPerChild => 3, MaxRequestWorkers => 3, MaxSpareThreads => 3);
    $t->start;
    my @waiting = map { $t->begin('POST', "/guarded/held/$_", { body => "body $_" }) } 1 .. 40;
    $up->wait_event('held') for 1 .. 40;
    pass('40 are at the upstream');
    answered($t, '/engine', 'a request of the engine');
    answered($t, '/guarded', 'one more of the pipeline');
    $up->signal('go');
    my @wrong = grep { $waiting[$_ - 1]->response->body ne "body $_" } 1 .. 40;
    is("@wrong", '', 'each gets its own answer');
    wait_until('forty parked ones in the log', undef, sub {
        return grep({ m{^pipeline parked /guarded/held} } $t->access_log) == 40;
    });
};

# Where httpd itself can: it blocks for what it has to read or encrypt.
behaviour 'slow readers of large files hold no thread', lanes => [qw(event engine)], sub {
    my ($t) = @_;
    $t->config('EnableSendfile on');
    proxied($t, ThreadsPerChild => 2, MaxRequestWorkers => 2, MaxSpareThreads => 2);
    my $content = join '', map { sprintf "%015d\n", $_ } 1 .. MIB;
    $t->file('htdocs/static/large', $content);
    $t->start;
    my @readers = map {
        $t->begin('GET', '/static/large', { client => { receive_buffer => 65_536 } })
    } 1 .. 6;
    $_->head for @readers;
    answered($t, '/engine', 'a request of the engine');
    answered($t, '/guarded', 'one of the pipeline');
    my @results = map { $_->response(60) } @readers;
    is(scalar(grep { $_->complete && $_->body eq $content } @results), 6, 'all bytes, in order');
};

behaviour 'a connection goes to the pipeline and back 200 times', @engine, sub {
    my ($t) = @_;
    $t->config('MaxKeepAliveRequests 0');
    my $up = proxied($t);
    utime 0, 1_000_000_000, $t->file('htdocs/static/file', 'static');
    $t->start;
    my $client = $t->raw_client;
    my @wrong;
    for my $number (1 .. 200) {
        my $body = "$number " . 'x' x ($number * 331 % 70_000);
        my @framing = $number % 3 ? () : (chunked => 1);
        my $guarded = $client->request('POST', "/guarded/$number", { body => $body, @framing });
        my $engine = $client->request('PUT', "/engine/$number", { body => "e$body", @framing });
        push @wrong, $number if $guarded->body ne $body || $engine->body ne "e$body"
            || ($guarded->header('X-Guard') // '') ne '1' || defined $engine->header('X-Guard')
            || ($number % 10 == 0 && $client->get('/static/file')->body ne 'static');
    }
    is("@wrong", '', 'each answer is its own');
    wait_until('all lines in the log', undef, sub { return $t->access_log >= 420 });
    my %served;
    $served{ (split / /)[0] }++ for $t->access_log;
    is($served{pipeline}, 200, 'half of them by the pipeline');
    is($served{engine}, 200, 'half by the engine');
    is($served{'-'}, 20, 'and files');
};

behaviour 'the same with all requests written ahead', @engine, sub {
    my ($t) = @_;
    $t->config('MaxKeepAliveRequests 0');
    my $up = proxied($t);
    $t->start;
    my $bytes = join '', map {
        my $body = 'b' x ($_ * 97 % 5_000);
        ($_ % 2 ? 'POST /guarded' : 'PUT /engine') . "/$_ HTTP/1.1\r\nHost: www.example.test\r\n"
            . 'Content-Length: ' . length($body) . "\r\n\r\n$body"
    } 1 .. 90;
    my $client = $t->raw_client;
    $client->{duplex} = 1;
    $client->write($bytes);
    my @wrong = grep {
        my $response = $client->read_response;
        ($response->header('X-Target') // '') !~ m{/$_$}
            || length $response->body != $_ * 97 % 5_000;
    } 1 .. 90;
    is("@wrong", '', 'in order, whole');
    is(scalar($up->requests), 90, 'none twice');
};

# Malformed already, but not whole: whoever reads on must not be a thread.
behaviour 'heads that are malformed and never end hold no thread', @engine, sub {
    my ($t) = @_;
    proxied($t, ThreadsPerChild => 2, MaxRequestWorkers => 2, MaxSpareThreads => 2);
    $t->start;
    my @stalled = map { $t->raw_client } 1 .. 6;
    $_->write("GET /\0 HTTP/1.1\r\nX") for @stalled;
    answered($t, '/engine', 'a request of the engine');
    answered($t, '/guarded', 'one of the pipeline');
    $_->close for @stalled;
};

behaviour 'uploads that stall hold no thread of the lane', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t, ThreadsPerChild => 2, MaxRequestWorkers => 2, MaxSpareThreads => 2);
    $t->start;
    my @stalled = map { $t->begin('PUT', "/guarded/$_", { stream => 1 }) } 1 .. 6;
    $_->write('begun ') for @stalled;
    answered($t, '/engine', 'a request of the engine');
    answered($t, '/guarded', 'one of the pipeline');
    for my $exchange (@stalled) {
        $exchange->write('ended');
        $exchange->finish;
        is($exchange->response->body, 'begun ended', 'goes on');
    }
};

done_testing;
