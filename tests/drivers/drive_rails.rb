# ActiveRecord, Rails' layer to the database, on Ruby's pg: statements are prepared by default (a1, a2, ...)
# and let go in SQL when its cache of them (statement_limit) is full.
require 'active_record'

$servers = {}
$stdout.sync = true
def say(*values) = puts(values.join(' '))

SETTINGS = { adapter: 'postgresql', host: ENV['PGHOST'], port: ENV['PGPORT'], database: ENV['PGDATABASE'],
             username: ENV['PGUSER'], password: ENV['PGPASSWORD'], pool: 5, variables: {} }.freeze
ActiveRecord::Base.establish_connection(SETTINGS.merge(advisory_locks: false))

class Author < ActiveRecord::Base
  has_many :books, dependent: :destroy
  validates :name, presence: true
end

class Book < ActiveRecord::Base
  belongs_to :author
end

def attempt(step, about)
  say(step, about, yield)
rescue ActiveRecord::ActiveRecordError => error
  say(step, about, error.class, error.message.lines.first.strip)
end

ActiveRecord::Schema.verbose = false
ActiveRecord::Migration.verbose = false
ActiveRecord::Schema.define do
  create_table(:authors) { |t| t.text :name; t.index :name, unique: true; t.timestamps }
  create_table(:books) do |t|
    t.text :title
    t.decimal :price, precision: 10, scale: 2
    t.binary :cover
    t.text :tags, array: true
    t.jsonb :about
    t.references :author
  end
end
say('migrate', *ActiveRecord::Base.connection.tables.sort)

20.times do |number|
  author = Author.create!(name: "author #{number} ä€🐘")
  3.times { |i| author.books.create!(title: "it's \"book\" #{i}", price: '12.50', cover: "\0\xff".b, tags: %w[a b], about: { pages: i }) }
end
20.times { |i| say('repeat', Author.find(i + 1).name, Author.where('id > ?', i).count, Author.find_by(name: "author #{i} ä€🐘").id) }
book = Book.order(:id).second
say('types', book.title, book.price, book.cover.unpack1('H*'), book.tags, book.about, book.author.name)
say('query', Author.joins(:books).where(books: { title: book.title }).distinct.count, Author.includes(:books).sum { |a| a.books.size })

attempt('errors', 'unique') { Author.create!(name: 'author 1 ä€🐘') }
attempt('errors', 'zero') { Author.where('1 / ? = 1', 0).to_a }
attempt('errors', 'missing') { Author.find(1000) }
say('errors', 'usable', Author.count)

attempt('failed_transaction', 'block') { Author.transaction { Author.create!(name: 'gone'); Author.create!(name: 'gone') } }
say('failed_transaction', Author.where(name: 'gone').count)
Author.transaction do
  Author.create!(name: 'outer')
  begin
    Author.transaction(requires_new: true) { Author.create!(name: 'outer') }
  rescue ActiveRecord::RecordNotUnique
    say('savepoint', 'rolled back')
  end
  say('savepoint', Author.lock.find_by(name: 'outer').name)
end
Author.insert_all((1..500).map { |i| { name: "many #{i}", created_at: Time.now, updated_at: Time.now } })
say('batch', Author.count, Author.find_each(batch_size: 50).count)

# threads are an application server's workers: each has a connection
turn = Queue.new
ready = Queue.new
threads = Array.new(4) do |number|
  Thread.new do
    found = []
    ready << true
    turn.pop
    20.times do |i|
      ActiveRecord::Base.connection_pool.with_connection do |conn|
        Author.transaction do
          $servers[conn.select_value('select pg_backend_pid()')] = true
          found << Author.find(i + 1).name
        end
      end
    end
    [number, found.size, found.last]
  end
end
4.times { ready.pop }
4.times { turn << true }
threads.each { |thread| say('threads', thread.value.inspect) }

# a column comes: the statement's columns change below the application
Author.find(1)
ActiveRecord::Base.connection.select_all('select * from books where id = $1', 'SQL', [1], preparable: true)
other = PG.connect
other.exec("alter table authors add column motto text default 'new'")
attempt('schema', 'outside') { Author.find(1).name }
attempt('schema', 'inside') { Author.transaction { Author.find(2).name } }
Author.reset_column_information
attempt('schema', 'known') { Author.find(1).motto }

# a small cache of statements: each new one takes an old one away, in SQL
ActiveRecord::Base.establish_connection(SETTINGS.merge(statement_limit: 3))
10.times { |i| attempt('limit', i) { [Author.find(1).id, Book.find(1).id, Author.where(id: i).order(:name).limit(1).pluck(:id).inspect, Book.where(author_id: i).limit(2).count, Author.find_by(name: 'outer').name] } }
ActiveRecord::Base.establish_connection(SETTINGS.merge(prepared_statements: false))
3.times { |i| say('unprepared', Author.find(i + 1).name) }

ActiveRecord::Base.establish_connection(SETTINGS)
Author.find(1)
ActiveRecord::Base.connection.execute('discard all')
attempt('discard', 'after') { Author.find(1).name }
ActiveRecord::Base.connection.reconnect!
attempt('discard', 'reconnected') { Author.find(1).name }
attempt('reconnect', 'killed') { ActiveRecord::Base.connection.execute('select pg_terminate_backend(pg_backend_pid())') }
ActiveRecord::Base.connection.verify!
say('reconnect', Author.find(1).name)
puts "# servers #{$servers.size}", 'end'
